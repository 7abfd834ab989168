"""The benchmark for GPUs: its reckoning, and all of it in little on a CPU."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from conftest import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "benchmarks"))
import gpu

JOB = {**gpu.NETWORKS["resnet18"], "device": "gpu", "precision": "float16", "matrix": 10}
FACTS = {"macs": 100, "memory": 2_000_000_000, "reserved": 3e9, "total_memory": 24e9}


def seconds_of(job):
    """What a card might take: static graphs are faster, PyTorch too, on the host it is slower."""
    if job["who"] == "peak":
        return 1.0
    if job["who"] == "torch":
        return 0.5
    change = " ".join(job["set"])
    if "cinn" in change:
        return None
    return {"training.compile=static": 1.6, "augmentation.on_device=false": 2.5}.get(change, 2.0)


@pytest.fixture
def turns(monkeypatch):
    """The jobs of each time that sides took turns."""
    taken = []

    def take_turns(jobs, rounds):
        taken.append(list(jobs.values()))
        seconds = {name: s for name, job in jobs.items() if (s := seconds_of(job))}
        facts = {name: FACTS if name in seconds else {"error": "built without it"} for name in jobs}
        return seconds, facts

    monkeypatch.setattr(gpu, "take_turns", take_turns)
    monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda name: name)
    return taken


def test_each_setting_is_turned_against_auto_alone(turns):
    sides = gpu.sides_of(JOB)
    assert {name: job.get("set") for name, job in sides.items()} == {
        "training.backend=paddle": ["training.backend=paddle"],
        "training.compile=static": ["training.compile=static"],
        "training.compile=cinn": ["training.compile=cinn"],
        "optimizer.fused=false": ["optimizer.fused=false"],
        "FLAGS_cudnn_exhaustive_search=1": [],
        "auto, data": [],
        "augmentation.on_device=false, data": ["augmentation.on_device=false"],
        "PyTorch": None,
        "PyTorch, torch.compile": None,
        "peak": None,
    }
    single = gpu.sides_of({**JOB, "precision": "float32"})
    assert "training.backend=channels_last" in single
    assert "augmentation.on_device=true, data" in single


def test_rows_say_speed_ratio_memory_and_share_of_the_peak(turns):
    rows = {row.side: row for row in gpu.compare("resnet18", JOB, 3)}
    images = JOB["batch"] * JOB["steps"]
    auto = rows["auto"]
    assert auto.images_per_second == images / 2.0
    assert auto.memory == 2_000_000_000
    peak = 2 * 10**3 * JOB["steps"] / 1.0
    assert auto.of_peak == pytest.approx(6 * 100 * images / 2.0 / peak)
    ratios = {name: row.of_auto for name, row in rows.items()}
    assert ratios["training.compile=static"] == pytest.approx(1.25)
    assert ratios["augmentation.on_device=false, data"] == pytest.approx(0.8)
    assert rows["training.compile=cinn"].images_per_second is None
    assert str(rows["training.compile=cinn"]).endswith("left out: built without it")
    assert list(gpu.verdict(list(rows.values()))) == [
        "resnet18 in float16: training.compile=static is 1.25 times as fast as what auto takes"
    ]


def test_no_more_sides_than_fit_into_the_card_run_at_once(turns):
    list(gpu.compare("resnet18", JOB, 3))
    most = max(len(jobs) for jobs in turns)
    assert most * (FACTS["reserved"] + gpu.CONTEXT) <= gpu.USED * FACTS["total_memory"]
    together = [
        [job.get("set") for job in jobs] for jobs in turns if any(j.get("data") for j in jobs)
    ]
    assert together == [[[], ["augmentation.on_device=false"]]]


def test_where_nothing_is_faster_auto_is_the_fastest():
    rows = [
        gpu.Row("resnet18", "float16", name, 1.0, ratio)
        for name, ratio in (("auto", 1.0), ("x", 0.9), ("PyTorch", 2.0))
    ]
    assert list(gpu.verdict(rows)) == [
        "The settings that auto takes are the fastest of those measured."
    ]
    assert list(gpu.verdict(rows[:1])) == ["Nothing was compared with auto."]


@pytest.mark.slow
def test_all_of_it_in_little_on_a_cpu(tmp_path):
    file = tmp_path / "found.json"
    words = ["--device", "cpu", "--quick", "--networks", "resnet18", "--rounds", "1"]
    words += ["--precisions", "float32", "float16", "--json", str(file)]
    program = [sys.executable, str(REPOSITORY / "benchmarks" / "gpu.py"), *words]
    done = subprocess.run(program, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert "received float16, but a CPU has bfloat16 or float32" in done.stdout
    found = json.loads(file.read_text())
    assert found["versions"][0].startswith("Paddle ")
    assert found["versions"][0] in done.stdout
    rows = {(row["precision"], row["side"]): row for row in found["rows"]}
    for side in (
        "auto",
        "training.backend=paddle",
        "training.compile=static",
        "optimizer.fused=true",
        "augmentation.on_device=true, data",
    ):
        row = rows["float32", side]
        assert row["images_per_second"] > 0, row
        assert row["of_auto"] > 0
        assert 0 < row["of_peak"] < 10
    assert "cinn" in rows["float32", "training.compile=cinn"]["facts"]["error"]
    assert rows["float16", "auto"]["images_per_second"] is None
