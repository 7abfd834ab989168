"""A run that was stopped, however, ends as the one that never was."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY
from visualdl import LogReader

from resnet_fit import fit, parse_config, resume
from resnet_fit.callbacks import Checkpoint
from resnet_fit.config.document import dump
from resnet_fit.errors import RunFailed, UserError
from resnet_fit.networks.weights import read_weights
from resnet_fit.training.checkpoints import CHECKSUMS, OPTIMIZER, STATE, WEIGHTS

TIMES = ("images_per_second", "train_seconds", "eval_seconds", "seconds")
COMMAND = [sys.executable, "-c", "import sys; from resnet_fit.cli import main; sys.exit(main())"]


class Stop(Exception):
    pass


def stop_after(monkeypatch, saves):
    """Let a training die right after its so-many-th checkpoint, as a power cut would have it."""
    save, count = Checkpoint.save, [0]

    def saving(self):
        save(self)
        count[0] += 1
        if count[0] == saves:
            raise Stop

    monkeypatch.setattr(Checkpoint, "save", saving)


def rows(folder):
    lines = (Path(folder) / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in lines]


def scalars(folder):
    reader = LogReader(file_path=str(Path(folder) / "visualdl" / "vdlrecords.run.log"))
    return {
        tag: [(d.id, d.value) for d in reader.get_data("scalar", tag)]
        for tag in reader.get_tags()["scalar"]
        if not tag.endswith(TIMES)
    }


def assert_equal_runs(folder, other):
    assert rows(folder) == rows(other)
    assert scalars(folder) == scalars(other)
    for which in ("last", "best"):
        ours, theirs = (
            read_weights(Path(f) / "checkpoints" / which / "model.pdparams")
            for f in (folder, other)
        )
        assert ours.keys() == theirs.keys()
        for name in ours:
            assert np.array_equal(ours[name], theirs[name]), (which, name)
        ours, theirs = (
            dict(np.load(Path(f) / "checkpoints" / which / "optimizer.npz"))
            for f in (folder, other)
        )
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[k], theirs[k]) for k in ours)


OPTIMIZERS = {
    "momentum": {"name": "momentum", "learning_rate": 0.1, "nesterov": True, "weight_decay": 1e-3},
    "adamw": {"name": "adamw", "learning_rate": 0.01, "weight_decay": 0.1},
}


@pytest.mark.parametrize(
    ("optimizer", "accumulate", "saves"),
    [("momentum", 1, n) for n in (3, 9, 10, 11)] + [("momentum", 3, 2), ("adamw", 1, 14)],
)
def test_stopped_and_resumed(tiny, tmp_path, monkeypatch, optimizer, accumulate, saves):
    """The training dies after a checkpoint amid, just before, or at the end of an epoch."""
    tiny["optimizer"] = OPTIMIZERS[optimizer]
    tiny["data"] |= {"batch_size": 150}  # 10 steps an epoch, the last one smaller
    tiny["training"] |= {"accumulate": accumulate}
    tiny["logging"] = {"every_steps": 4}
    config = parse_config(tiny)
    whole = fit(config, tmp_path, "whole").folder
    with monkeypatch.context() as patch:
        stop_after(patch, saves)
        with pytest.raises(Stop):
            fit(parse_config(tiny, ["checkpoint.every_minutes=1e-9"]), tmp_path, "stopped")
    resume(tmp_path / "stopped", ["checkpoint.every_minutes=10"])
    assert_equal_runs(tmp_path / "stopped", whole)


def test_a_run_can_be_extended(tiny, tmp_path):
    tiny["schedule"] = {"name": "constant"}
    config = parse_config(tiny)
    fit(config, tmp_path, "short")
    run = resume(tmp_path / "short", ["training.epochs=3"])
    longer = fit(parse_config(tiny, ["training.epochs=3"]), tmp_path, "longer")
    assert_equal_runs(run.folder, longer.folder)
    assert run.summary["epochs"] == 3


def test_a_finished_run_has_nothing_to_do(tiny, tmp_path):
    folder = fit(parse_config(tiny), tmp_path, "done").folder
    before = rows(folder)
    resume(folder)
    assert rows(folder) == before


def test_settings_may_not_change(tiny, tmp_path):
    folder = fit(parse_config(tiny), tmp_path, "done").folder
    with pytest.raises(UserError, match="keeps its settings"):
        resume(folder, ["optimizer.learning_rate=1"])
    with pytest.raises(UserError, match="not a run's folder"):
        resume(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return fit(parse_config(TINY), tmp_path_factory.mktemp("runs"), "whole").folder


@pytest.mark.parametrize("file", [WEIGHTS, OPTIMIZER, STATE, CHECKSUMS])
@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(finished, tmp_path, capsys, file, damage):
    folder = tmp_path / "damaged"
    shutil.copytree(finished, folder)
    target = folder / "checkpoints" / "last" / file
    content = bytearray(target.read_bytes())
    os.unlink(target)
    if damage != "gone":
        content[len(content) // 2] ^= 1
        target.write_bytes(content if damage == "flipped" else content[: len(content) // 2])
    resume(folder)
    assert ".last.previous" in capsys.readouterr().out
    assert_equal_runs(folder, finished)


def test_no_whole_checkpoint_is_an_error_that_says_so(finished, tmp_path):
    folder = tmp_path / "lost"
    shutil.copytree(finished, folder)
    for name in ("last", ".last.previous"):
        (folder / "checkpoints" / name / STATE).unlink()
    with pytest.raises(UserError, match=r"no whole checkpoint.*state\.json"):
        resume(folder)


def test_an_infinite_loss_stops_the_run_and_keeps_the_last_checkpoint(tiny, tmp_path):
    tiny["optimizer"] = {"name": "sgd", "learning_rate": 1e39}
    tiny["schedule"] = {"name": "multi_step", "at_epochs": [1], "factor": 0.5}
    with pytest.raises(RunFailed, match=r"the loss became (nan|inf) in epoch 1 at step \d+, at a"):
        fit(parse_config(tiny), tmp_path, "diverges")
    assert not (tmp_path / "diverges" / "checkpoints").exists()


def start(*arguments):
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for(condition, process, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_says_how_to_go_on(tiny, tmp_path, write_yaml, number):
    tiny["training"]["epochs"] = 100
    tiny["schedule"] = {"name": "constant"}
    process = start("--config", write_yaml(tiny), "--output", tmp_path, "--name", "run")
    wait_for((tmp_path / "run" / "checkpoints" / "last").exists, process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert errors.splitlines()[-1].endswith(f"resnet-fit --resume {tmp_path / 'run'}")
    assert "Traceback" not in errors
    done = rows(tmp_path / "run")[-1]["epoch"]
    resumed = resume(tmp_path / "run", [f"training.epochs={done + 2}"]).folder
    whole = fit(parse_config(tiny, [f"training.epochs={done + 2}"]), tmp_path, "whole").folder
    assert_equal_runs(resumed, whole)


def test_two_processes_in_one_folder(tiny, tmp_path, write_yaml):
    tiny["training"]["epochs"] = 100
    process = start("--config", write_yaml(tiny), "--output", tmp_path, "--name", "run")
    wait_for((tmp_path / "run" / "checkpoints" / "last").exists, process)
    try:
        with pytest.raises(UserError, match="another process"):
            resume(tmp_path / "run")
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_killed_ten_times(tiny, tmp_path, optimizer):
    """SIGKILL at ten random moments, in steps, in saves and in evaluations.

    A checkpoint is saved after every step, so that most of the time is spent saving.
    """
    tiny["optimizer"] = OPTIMIZERS[optimizer]
    tiny["training"]["epochs"] = 22
    tiny["checkpoint"] = {"every_minutes": 1e-9}
    file = tmp_path / "experiment.yaml"
    file.write_text(dump(tiny))
    whole = fit(parse_config(tiny), tmp_path, "whole").folder
    rng = random.Random(optimizer)
    killed = tmp_path / "killed"
    process = start("--config", file, "--output", tmp_path, "--name", "killed")
    for _ in range(10):
        there = saved_step(killed) + rng.randrange(3, 35)
        wait_for(partial(is_beyond, killed, there), process)
        time.sleep(rng.uniform(0, 0.2))
        assert process.poll() is None
        process.kill()
        process.communicate()
        process = start("--resume", killed)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert_equal_runs(killed, whole)


def saved_step(run):
    """The step of the last checkpoint; 0 while there is none, or another takes its place."""
    try:
        return json.loads((run / "checkpoints" / "last" / STATE).read_text())["clock"]["step"]
    except (OSError, ValueError):
        return 0


def is_beyond(run, step):
    return saved_step(run) >= step
