"""`resnet-fit doctor` tells what is here, what was set, and what is broken."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from resnet_fit import machine
from resnet_fit.backends import onednn_problem
from resnet_fit.cli import main
from resnet_fit.errors import RunFailed
from resnet_fit.reports import doctor
from resnet_fit.reports.trial import IMAGES, Trial
from resnet_fit.runtime import find_settings

SOURCE = Path(__file__).resolve().parents[1] / "src"
COMMAND = [sys.executable, "-c", "import sys; from resnet_fit.cli import main; sys.exit(main())"]


def run(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "doctor", *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(SOURCE)} | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture
def here(capsys):
    """The same in this process, which has imported Paddle already."""

    def call(*arguments: object) -> subprocess.CompletedProcess[str]:
        code = main(["doctor", *map(str, arguments)])
        captured = capsys.readouterr()
        return subprocess.CompletedProcess([], code, captured.out, captured.err)

    return call


def test_redirected_output_is_plain_text(tmp_path):
    process = run("--no-measure", "--output", tmp_path / "runs", OMP_NUM_THREADS="1")
    assert (process.returncode, process.stderr) == (0, "")
    assert all(c.isprintable() or c == "\n" for c in process.stdout)
    assert not any(c in process.stdout for c in "│┃━")
    rows = {line.split("  ")[0]: line for line in process.stdout.splitlines()}
    assert rows["processor"].endswith(machine.processor())
    threads = " ".join(rows["OMP_NUM_THREADS"].split())
    assert threads == "OMP_NUM_THREADS 1 your own, which wins"
    backend = "paddle" if onednn_problem() else "onednn"
    assert rows["device and backend by auto"].endswith(backend)
    assert "nothing is broken" in rows
    assert not (tmp_path / "runs").exists()


def test_json_for_machines(here, tmp_path):
    process = here("--no-measure", "--json", "--output", tmp_path)
    assert (process.returncode, process.stderr) == (0, "")
    found = json.loads(process.stdout)
    assert set(found) == {"versions", "machine", "settings", "gains", "warnings", "problems"}
    assert found["machine"]["physical cores"] == machine.cores().physical
    assert found["machine"]["bfloat16"] == machine.has_bfloat16()
    assert {s["variable"] for s in found["settings"]} == {s.variable for s in find_settings()}
    assert all(found["versions"][name] for name in ("python", "paddle", "numpy", "visualdl"))
    assert found["problems"] == found["gains"] == []


def test_a_terminal_gets_tables(tmp_path):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=160, markup=False)
    doctor.diagnose(tmp_path, console, measure=False)
    assert "┃" in screen.getvalue()
    assert machine.processor() in screen.getvalue()


# --- broken ---------------------------------------------------------------------------


def assert_broken(process, *words: str) -> None:
    assert process.returncode == 1
    assert "Traceback" not in process.stderr
    lines = process.stderr.splitlines()
    assert len(lines) == len(words)
    for line, word in zip(lines, words, strict=True):
        assert line.startswith("resnet-fit: ")
        assert word in line


def test_paddle_and_visualdl_that_cannot_be_imported(tmp_path):
    for package in ("paddle", "visualdl"):
        (tmp_path / f"{package}.py").write_text(f"raise ImportError('no lib{package}.so')")
    path = f"{tmp_path}{os.pathsep}{SOURCE}"
    process = run(PYTHONPATH=path)
    assert_broken(
        process,
        "Paddle cannot be imported (ImportError: no libpaddle.so); install resnet-fit[cpu]",
        "VisualDL cannot be imported (ImportError: no libvisualdl.so); pip install --upgrade",
    )
    assert machine.processor() in process.stdout
    assert "nothing is broken" not in process.stdout
    assert len(json.loads(run("--json", PYTHONPATH=path).stdout)["problems"]) == 2


@pytest.fixture
def with_broken(here, monkeypatch, tmp_path):
    """The command here, with one thing broken."""

    def call(name: str, replacement: object, *arguments: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(doctor, name, replacement)
        return here("--output", tmp_path, *arguments)

    return call


@pytest.mark.skipif(onednn_problem() is not None, reason="no onednn backend here")
def test_an_engine_that_computes_wrongly(with_broken):
    assert doctor.backends_apart() < 1e-5
    process = with_broken("backends_apart", lambda: float("nan"), "--no-measure")
    assert_broken(process, "train with --set training.backend=paddle")


def test_a_step_that_dies(with_broken, monkeypatch):
    monkeypatch.setattr(Trial, "start", lambda trial: trial)

    def die(*_: object) -> None:
        raise RunFailed("onednn float32: the process died (exit -4)")

    assert_broken(with_broken("alternate", die), "a training step does not work: onednn float32")


def test_a_folder_that_cannot_be(here, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    process = here("--no-measure", "--output", file / "runs")
    assert_broken(process, f"{file}: nothing can be written there; choose another --output")


# --- the measurement ------------------------------------------------------------------


def test_gains_compare_without_and_with(monkeypatch):
    """Slower by a second for each variable that is left out, and by ten without oneDNN."""
    for variable in ("MKL_DEBUG_CPU_TYPE", "MALLOC_TOP_PAD_"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    monkeypatch.setattr(machine, "vendor", lambda: "AuthenticAMD")
    monkeypatch.setattr(machine, "has_bfloat16", lambda: True)
    monkeypatch.setattr("resnet_fit.backends.onednn_problem", lambda: None)
    monkeypatch.setattr(Trial, "start", lambda trial: trial)

    def seconds(trial: Trial) -> float:
        slow = 11 if trial.backend == "paddle" else 1
        return (slow + len(trial.without)) / (2 if trial.dtype == "bfloat16" else 1)

    monkeypatch.setattr(doctor, "alternate", lambda sides, _: {t: seconds(t) for t in sides})
    gains = doctor.measure_gains(find_settings())
    found = {gain.what: gain for gain in gains}
    assert {what: gain.ratio for what, gain in found.items()} == {
        "OMP_NUM_THREADS=4": 2,
        "MALLOC_...": 4,
        "MKL_DEBUG_CPU_TYPE, paddle backend": round(12 / 11, 2),
        "onednn backend": 11,
        "bfloat16": 2,
        "all but bfloat16": 16,
    }
    assert found["bfloat16"].images_with == 2 * IMAGES


def test_a_trial_is_a_step_without_some_settings():
    side = Trial("paddle", without=frozenset(["OMP_NUM_THREADS"])).start()
    try:
        assert side.environment["OMP_NUM_THREADS"] is None
        assert side.measure() > 0
    finally:
        side.close()


@pytest.mark.slow
def test_measuring(tmp_path):
    found = json.loads(run("--json", "--output", tmp_path).stdout)
    assert len(found["gains"]) >= 3
    assert all(gain["images_with"] > 0 for gain in found["gains"])
