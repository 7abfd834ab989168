"""Runs on a GPU: half precision over a resume, NaN, memory, SIGKILL, and the command line."""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from conftest import TINY
from stopping import Stop, stop_after
from test_processes import contents, different

from resnet_fit import fit, parse_config, resume
from resnet_fit.config.document import dump
from resnet_fit.errors import RunFailed

pytestmark = pytest.mark.gpu

REPOSITORY = Path(__file__).resolve().parents[2]
PRECISIONS = ["float32", "float16", "bfloat16"]
HALF = "training.precision=float16"
PATIENCE = 300
# More than any other part of that run needs on a CPU.
HOST_MEMORY = 12 << 30


def state_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "checkpoints" / "last" / "state.json").read_text())


def rows_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(row) for row in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_the_loss_scale_of_a_run_that_goes_on_is_that_of_one_that_did_not_stop(
    device, tmp_path, optimizer
):
    config = TINY | {"optimizer": {"name": optimizer, "learning_rate": 0.01}}
    whole = fit(parse_config(config, [HALF]), tmp_path, "whole").folder
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(Stop):
            fit(parse_config(config, [HALF, "checkpoint.every_steps=5"]), tmp_path, "cut")
    cut = resume(tmp_path / "cut").folder
    ours, theirs = (state_of(folder)["scaler"] for folder in (cut, whole))
    assert ours == theirs
    assert ours["scale"][0] >= 1
    assert 0 < ours["incr_count"] <= 2 * 23
    losses = [[row["train"]["loss"] for row in rows_of(folder)] for folder in (cut, whole)]
    np.testing.assert_allclose(*losses, rtol=0.02)  # equal where the kernels are deterministic


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_a_run_took_is_in_its_folder(device, tmp_path, precision):
    run = fit(parse_config(TINY, [f"training.precision={precision}"]), tmp_path, "run")
    found = json.loads((run.folder / "environment.json").read_text())
    half = precision != "float32"
    assert found["device"] == device.seen_as
    assert found["backend"] == ("channels_last" if half else "paddle")
    assert (found["compile"], found["fused"], found["on_device"]) == ("off", True, half)
    assert run.summary["last"]["eval"]["top1"] > 0.2  # of ten classes, after two epochs


@pytest.fixture
def nan_at_step_5(monkeypatch):
    """The fifth batch of a training is NaN."""
    train, steps = paddle.Model.train_batch, [0]

    def poisoned(model: Any, inputs: Any, *rest: Any) -> Any:
        steps[0] += 1
        if steps[0] == 5:
            inputs = [paddle.full(inputs[0].shape, math.nan)]
        return train(model, inputs, *rest)

    monkeypatch.setattr(paddle.Model, "train_batch", poisoned)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_nan_ends_a_run(device, tmp_path, nan_at_step_5, precision):
    config = parse_config(TINY, [f"training.precision={precision}"])
    # The loss of step 5 where ReLU keeps NaN; weights and statistics are looked at in step 20.
    message = r"the training diverged: .* became (nan|NaN or infinite) in epoch 1 at step (5|20)"
    with pytest.raises(RunFailed, match=message):
        fit(config, tmp_path, "run")


@pytest.mark.filterwarnings("ignore:epoch 1, step")
@pytest.mark.parametrize("precision", PRECISIONS)
def test_nan_is_skipped(device, tmp_path, nan_at_step_5, precision):
    overrides = [f"training.precision={precision}", "training.on_nan=skip"]
    run = fit(parse_config(TINY, overrides), tmp_path, "run")
    skipped = state_of(run.folder)["nan_skip"]["skipped"]
    # A loss scale that is too large at the start leaves out steps as well.
    assert skipped == 1 if precision != "float16" else 1 <= skipped < 10
    assert run.summary["last"]["eval"]["top1"] > 0.2  # of ten classes, after two epochs


# --- the command line ---------------------------------------------------------------------


def start(words: list[str], folder: Path, memory: int | None = None) -> subprocess.Popen[str]:
    def limit() -> None:
        if memory is not None:
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))

    paths = [str(REPOSITORY / "src"), str(REPOSITORY / "tests")]
    more = {"PYTHONPATH": os.pathsep.join(paths), "FLAGS_cudnn_deterministic": "1"}
    return subprocess.Popen(
        words,
        cwd=folder,
        env=os.environ | more,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=limit,
    )


def run(words: list[str], folder: Path) -> str:
    process = start(words, folder)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err + out
    return out


def test_memory_that_runs_out_is_told_in_one_line(device, tmp_path):
    """96 GB for what each convolution and each norm gives in half precision: two need 193."""
    (tmp_path / "config.yaml").write_text(dump(TINY))
    words = ["--config", "config.yaml", "--name", "run"]
    words += [
        "--set=data.batch_size=1437",
        "--set=model.width=512",
        "--set=augmentation.train=[resize: {size: 256}, normalize]",
        f"--set={HALF}",
    ]
    memory = None if device.is_gpu else HOST_MEMORY
    process = start(device.command(*words), tmp_path, memory)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1, err + out
    last = " ".join(err.split()).rpartition("resnet-fit: ")[2]
    assert last.startswith("memory ran out in epoch 1 after step 0, at data.batch_size 1437; try")
    assert "Traceback" not in err + out


def test_a_run_that_is_killed_ends_as_one_that_was_not(device, tmp_path):
    config = TINY | {"callbacks": {"weight_average": {"decay": 0.9}, "visualdl": None}}
    config |= {"training": {"epochs": 3}, "checkpoint": {"every_steps": 4}}
    (tmp_path / "config.yaml").write_text(dump(config))
    words = ["--config", "config.yaml", f"--set={HALF}"]
    for name in ("whole", "again"):
        run(device.command(*words, "--name", name), tmp_path)
    killed = tmp_path / "runs" / "killed"
    process = start(device.command(*words, "--name", "killed"), tmp_path)
    until = time.monotonic() + PATIENCE
    while not (killed / "checkpoints" / "last").exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (killed / "summary.json").exists()
    run(device.command("--resume", "runs/killed"), tmp_path)
    whole, again, ours = (
        contents(tmp_path / "runs" / name) for name in ("whole", "again", "killed")
    )
    assert ours["epoch 3"]["step"] == whole["epoch 3"]["step"]
    if unlike := different(whole, again):
        pytest.skip(
            "the kernels of this card are not deterministic: two runs that nothing stopped differ "
            f"in {len(unlike)} of {len(whole)} parts, so that no third one can be compared"
        )
    assert different(ours, whole) == []


def test_the_command_line_from_end_to_end(device, tmp_path):
    config = str(REPOSITORY / "configs" / "resnet18_digits.yaml")
    few = [f"--set={HALF}"]
    if not device.is_gpu:
        few += ["--set=model.width=4", "--set=training.epochs=2", "--set=data.limit=300"]
    words = ["--config", config, *few]
    said = run(device.command(*words, "--name", "digits"), tmp_path)
    assert "channels_last backend, fused steps, augmentation on the device" in " ".join(
        said.split()
    )
    folder = tmp_path / "runs" / "digits"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["environment"]["device"] == device.seen_as
    if device.is_gpu:
        assert summary["last"]["eval"]["top1"] >= 0.97
    run(device.command("evaluate", "runs/digits"), tmp_path)
    judged = json.loads((folder / "evaluation" / "evaluation.json").read_text())
    best = summary["best"]["eval"]["top1"]
    assert judged["figures"]["top1"] == pytest.approx(best, abs=0.01)  # in float32
    assert "# gpu:0, channels_last" in run(device.command(*words, "--dry-run"), tmp_path)
    assert "images/s" in run(device.command("profile", *words, "--steps", 2), tmp_path)
