"""A run that was stopped, however, ends as the one that never was."""

from __future__ import annotations

import hashlib
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
import paddle
import pytest
from conftest import TINY
from PIL import Image
from stopping import Stop, stop_after
from visualdl import LogReader

from resnet_fit import fit, parse_config, resume
from resnet_fit.checkpoints.files import (
    AVERAGE,
    CHECKSUMS,
    CONFIG,
    DATA,
    OPTIMIZER,
    STATE,
    WEIGHTS,
)
from resnet_fit.config.document import dump
from resnet_fit.errors import Interrupted, RunFailed, UserError
from resnet_fit.networks import count_parameters, densenet
from resnet_fit.networks.weights import read_weights

TIMES = ("images_per_second", "train_seconds", "data_wait", "eval_seconds", "seconds")
COMMAND = [sys.executable, "-c", "import sys; from resnet_fit.cli import main; sys.exit(main())"]


def rows(folder):
    lines = (Path(folder) / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in lines]


# What records hold beside the config, in which the runs compared here may differ.
SHOWN = ("scalar", "image", "histogram")


def records(folder):
    """What VisualDL shows of a run, times aside."""
    found = {}
    for file in sorted(Path(folder).glob("visualdl/*/vdlrecords.run.log")):
        reader = LogReader(file_path=str(file))
        for kind, tags in reader.get_tags().items():
            for tag in tags:
                if kind in SHOWN and not tag.endswith(TIMES):
                    values = reader.get_data(kind, tag)
                    found[file.parent.name, kind, tag] = [_without_time(v) for v in values]
    return found


def _without_time(record):
    record.ClearField("timestamp")
    return record.SerializeToString(deterministic=True)


def assert_equal_runs(folder, other):
    assert rows(folder) == rows(other)
    assert records(folder) == records(other)
    averages = (Path(folder) / "checkpoints" / "last" / AVERAGE).exists()
    for which in ("last", "best"):
        for file in (WEIGHTS, AVERAGE) if averages else (WEIGHTS,):
            ours, theirs = (
                read_weights(Path(f) / "checkpoints" / which / file) for f in (folder, other)
            )
            assert ours.keys() == theirs.keys()
            for name in ours:
                assert np.array_equal(ours[name], theirs[name]), (which, file, name)
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
    tiny.setdefault("callbacks", {})["visualdl"] = {"every_steps": 4}
    config = parse_config(tiny)
    whole = fit(config, tmp_path, "whole").folder
    with monkeypatch.context() as patch:
        stop_after(patch, saves)
        with pytest.raises(Stop):
            fit(parse_config(tiny, ["checkpoint.every_minutes=1e-9"]), tmp_path, "stopped")
    if saves == 10:  # before the first evaluation, whose epoch has its row already
        assert len(rows(tmp_path / "stopped")) == 1
    resume(tmp_path / "stopped", ["checkpoint.every_minutes=10"])
    assert_equal_runs(tmp_path / "stopped", whole)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("lost", [False, True])
def test_stopped_and_resumed_on_cached_images(tiny, tmp_path, monkeypatch, workers, lost):
    """The cache may be there, or have to be built again elsewhere."""
    rng = np.random.default_rng(0)
    for i in range(40):
        file = tmp_path / "photos" / "ab"[i % 2] / f"{i}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        size = tuple(rng.integers(40, 90, 2).tolist())
        Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8)).resize(size).save(file)
    tiny["data"] = {
        "name": "folder",
        "path": str(tmp_path / "photos"),
        "validation": 0.25,
        "batch_size": 8,
        "workers": workers,
        "cache": {"shorter_side": 24, "path": str(tmp_path / "cache")},
    }
    tiny["augmentation"] = {
        "train": [{"random_resized_crop": {"size": 16}}, "horizontal_flip", "normalize"],
        "eval": [{"resize": {"size": 24}}, {"center_crop": {"size": 16}}, "normalize"],
    }
    whole = fit(parse_config(tiny), tmp_path, "whole").folder
    assert len(list(tmp_path.glob("cache/*/index.npz"))) == 1
    uncached = fit(parse_config(tiny, ["data.cache=null"]), tmp_path, "uncached").folder
    assert rows(uncached) != rows(whole)
    with monkeypatch.context() as patch:
        stop_after(patch, 6)
        with pytest.raises(Stop):
            fit(parse_config(tiny, ["checkpoint.every_minutes=1e-9"]), tmp_path, "stopped")
    changes = ["checkpoint.every_minutes=10"]
    if lost:
        shutil.rmtree(tmp_path / "cache")
        changes.append(f"data.cache.path={tmp_path / 'elsewhere'}")
    resume(tmp_path / "stopped", changes)
    assert_equal_runs(tmp_path / "stopped", whole)


def test_a_densenet_stopped_and_resumed(tiny, tmp_path, monkeypatch):
    """With averaged weights, after two of ten batches; its checkpoint opens in `paddle.Model`."""
    tiny["model"] = {"name": "densenet", "depth": [2, 1], "stem": "cifar", "growth": 6}
    tiny["data"] |= {"batch_size": 20, "limit": 100}
    tiny["callbacks"] = {"weight_average": {"decay": 0.9}}
    whole = fit(parse_config(tiny), tmp_path, "whole")
    network = densenet([2, 1], 10, "cifar", growth=6, in_channels=1)
    assert whole.summary["parameters"] == count_parameters(network)
    paddle.Model(network).load(str(whole.folder / "checkpoints" / "last" / "model"))
    assert np.array_equal(
        network.out.bias.numpy(),
        read_weights(whole.folder / "checkpoints/last" / WEIGHTS)["out.bias"],
    )
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(Stop):
            fit(parse_config(tiny, ["checkpoint.every_steps=1"]), tmp_path, "stopped")
    resume(tmp_path / "stopped")
    assert_equal_runs(tmp_path / "stopped", whole.folder)


@pytest.mark.parametrize("saves", [1, 3, 7])
def test_accumulation_and_averages_stopped_amid_an_epoch(tiny, tmp_path, monkeypatch, saves):
    """The epochs after it have more steps than what was left of the one it stopped in."""
    tiny["data"] |= {"batch_size": 25, "limit": 210}  # 9 steps, in groups of 2
    tiny["training"] |= {"accumulate": 2, "epochs": 3}
    tiny["callbacks"] = {"weight_average": {"decay": 0.9}}
    tiny.setdefault("callbacks", {})["visualdl"] = {"every_steps": 4}
    whole = fit(parse_config(tiny), tmp_path, "whole").folder
    with monkeypatch.context() as patch:
        stop_after(patch, saves)
        with pytest.raises(Stop):
            fit(parse_config(tiny, ["checkpoint.every_steps=1"]), tmp_path, "stopped")
    resume(tmp_path / "stopped")
    assert_equal_runs(tmp_path / "stopped", whole)


def test_stopped_before_its_epoch_was_kept(tiny, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 2)  # the first one is before the evaluation
        with pytest.raises(Stop):
            fit(parse_config(tiny, ["checkpoint.keep=2"]), tmp_path, "run")
    assert not (tmp_path / "run" / "checkpoints" / "epoch-0001").exists()
    resume(tmp_path / "run")
    kept = sorted(p.name for p in (tmp_path / "run" / "checkpoints").glob("epoch-*"))
    assert kept == ["epoch-0001", "epoch-0002"]


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


def test_a_finished_run_is_tested_again(uninterrupted, tmp_path):
    """Its averaged weights as well, which no epoch has loaded."""
    _, whole = uninterrupted
    shutil.copytree(whole.folder, tmp_path / "run")
    assert resume(tmp_path / "run").summary["test"] == whole.summary["test"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    value = TINY | {"data": TINY["data"] | {"limit": 200}}  # resumed in each of many tests
    return fit(parse_config(value), tmp_path_factory.mktemp("runs"), "whole").folder


@pytest.mark.parametrize("file", [WEIGHTS, OPTIMIZER, STATE, CONFIG, DATA, CHECKSUMS])
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


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Two epochs, each evaluated in three ways, and a test in three ways."""
    value = TINY | {
        "data": TINY["data"] | {"limit": 200, "validation": 0.2, "eval_batch_size": 100},
        "training": {"epochs": 2},
        "callbacks": {
            "weight_average": {"decay": 0.9},
            "flip_average": {},
            "early_stopping": {"patience": 1},
        },
        "checkpoint": {"monitor": "ema_loss"},
    }
    folder = tmp_path_factory.mktemp("runs")
    return value, fit(parse_config(value), folder, "whole")


def interrupt_at(monkeypatch, batch):
    """Ctrl-C in a batch of an evaluation, counted over the whole run; returns what is evaluated."""
    evaluate, evaluated = paddle.Model.eval_batch, []

    def interrupted(self, *arguments):
        evaluated.append(self)
        if len(evaluated) == batch:
            signal.raise_signal(signal.SIGINT)
        return evaluate(self, *arguments)

    monkeypatch.setattr(paddle.Model, "eval_batch", interrupted)
    return evaluated


@pytest.mark.parametrize(
    "batch",
    [
        *(1, 2, 3, 4, 5, 6),  # of the first epoch's evaluations
        *(7, 9, 11),  # of the last one's
        *(13, 15, 17),  # of the test
    ],
)
def test_interrupted_in_an_evaluation(uninterrupted, tmp_path, monkeypatch, batch):
    value, whole = uninterrupted
    with monkeypatch.context() as patch:
        evaluated = interrupt_at(patch, batch)
        with pytest.raises(Interrupted, match="stopped and saved; go on with: resnet-fit --resume"):
            fit(parse_config(value), tmp_path, "run")
        assert len(evaluated) == batch, "it ends with this batch"
    assert not (tmp_path / "run" / "summary.json").exists()
    run = resume(tmp_path / "run")
    assert_equal_runs(run.folder, whole.folder)
    assert run.summary["test"] == whole.summary["test"]
    states = (
        json.loads((f / "checkpoints/last" / STATE).read_text()) for f in (run.folder, whole.folder)
    )
    ours, theirs = ({k: s[k] for k in ("checkpoint", "early_stopping", "metrics")} for s in states)
    assert ours == theirs


def test_interrupted_again_in_the_repeated_evaluation(uninterrupted, tmp_path, monkeypatch):
    value, whole = uninterrupted
    for sitting, batch in enumerate((9, 2, 3, 5)):
        with monkeypatch.context() as patch:
            interrupt_at(patch, batch)
            with pytest.raises(Interrupted):
                resume(tmp_path / "run") if sitting else fit(parse_config(value), tmp_path, "run")
    run = resume(tmp_path / "run")
    assert_equal_runs(run.folder, whole.folder)
    assert run.summary["test"] == whole.summary["test"]


def test_an_evaluation_that_ends_a_run_early_may_be_interrupted(
    uninterrupted, tmp_path, monkeypatch
):
    value = uninterrupted[0] | {"optimizer": {"name": "momentum", "learning_rate": 1e-9}}
    value["training"] = value["training"] | {"epochs": 5}
    stopping = {"early_stopping": {"patience": 1, "min_delta": 9}}
    value["callbacks"] = value["callbacks"] | stopping
    whole = fit(parse_config(value), tmp_path, "whole")
    assert whole.summary["epochs"] == 2
    with monkeypatch.context() as patch:
        interrupt_at(patch, 10)  # of the second epoch's averaged evaluation
        with pytest.raises(Interrupted):
            fit(parse_config(value), tmp_path, "run")
    run = resume(tmp_path / "run")
    assert run.summary["stopped_early"]
    assert_equal_runs(run.folder, whole.folder)


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


PARTS = [
    WEIGHTS,
    AVERAGE,
    OPTIMIZER,
    "weight_average",
    "checkpoint",
    "clock",
    "early_stopping",
    "history",
    "loader",
    "metrics",
    "schedule",
    "visualdl",
]


@pytest.fixture(scope="module")
def uninterrupted_stopped_and_young(tmp_path_factory):
    """One run three times: whole, dead amid its third epoch, and dead after its first step.

    Its loss rises after the first epoch, so that a forgotten best value shows, and early stopping
    ends it after the third.
    """
    value = TINY | {
        "data": {"name": "digits", "batch_size": 20, "limit": 200},
        "training": {"epochs": 6},
        "checkpoint": {"monitor": "loss"},
        "callbacks": {
            "weight_average": {"decay": 0.9},
            "early_stopping": {"patience": 2},
            "visualdl": {"every_steps": 4},
        },
    }
    folder = tmp_path_factory.mktemp("runs")
    fit(parse_config(value), folder, "whole")
    losses = [row["eval"]["loss"] for row in rows(folder / "whole")]
    assert losses.index(min(losses)) == 0, losses
    for name, saves in (("stopped", 25), ("young", 1)):
        with pytest.MonkeyPatch.context() as patch:
            stop_after(patch, saves)
            with pytest.raises(Stop):
                fit(parse_config(value, ["checkpoint.every_steps=1"]), folder, name)
    return folder


def test_a_run_with_everything_is_whole_again_after_a_stop(
    uninterrupted_stopped_and_young, tmp_path
):
    runs = uninterrupted_stopped_and_young
    shutil.copytree(runs / "stopped", tmp_path / "run")
    run = resume(tmp_path / "run")
    assert_equal_runs(run.folder, runs / "whole")
    assert run.summary["stopped_early"]
    assert run.summary["epochs"] == 3
    assert resume(tmp_path / "run").summary["epochs"] == 3


@pytest.mark.parametrize("part", PARTS)
def test_without_any_single_part_it_is_not(uninterrupted_stopped_and_young, tmp_path, part):
    """The control of the tests above: each part that a checkpoint has is needed, and compared."""
    runs, run = uninterrupted_stopped_and_young, tmp_path / "run"
    shutil.copytree(runs / "stopped", run)
    last, young = (folder / "checkpoints" / "last" for folder in (run, runs / "young"))
    if (last / part).exists():
        shutil.copy(young / part, last / part)
    else:
        state = json.loads((last / STATE).read_text())
        assert state[part] is not None
        state[part] = json.loads((young / STATE).read_text())[part]
        (last / STATE).write_text(json.dumps(state))
    sums = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in last.iterdir()
        if file.name != CHECKSUMS
    }
    (last / CHECKSUMS).write_text(json.dumps(sums))
    try:
        resume(run)
    except ZeroDivisionError:
        assert part == "clock"  # which cannot be behind the curves
        return
    with pytest.raises(AssertionError):
        assert_equal_runs(run, runs / "whole")


def test_the_control_leaves_out_every_part_there_is(uninterrupted_stopped_and_young):
    last = uninterrupted_stopped_and_young / "stopped" / "checkpoints" / "last"
    state = json.loads((last / STATE).read_text())
    assert state.pop("scaler") is None, "a CPU has no scaler"
    # Config and data do not change from step to step; that they are compared is tested elsewhere.
    files = {f.name for f in last.iterdir()} - {STATE, CHECKSUMS, CONFIG, DATA}
    assert sorted(files | state.keys()) == sorted(PARTS)


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("ResourceExhaustedError: Out of memory error on GPU 0.")]
)
def test_no_memory_is_told_in_one_line(tiny, tmp_path, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("paddle.Model.train_batch", fail)
    with pytest.raises(RunFailed, match=r"memory ran out in epoch 1 .* data.batch_size 64"):
        fit(parse_config(tiny), tmp_path, "run")


def test_other_errors_stay_what_they_are(tiny, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("something else")

    monkeypatch.setattr("paddle.Model.train_batch", fail)
    with pytest.raises(RuntimeError, match="something else"):
        fit(parse_config(tiny), tmp_path, "run")


def test_a_disk_too_small_for_the_checkpoints_is_told_before_the_first_epoch(
    tiny, tmp_path, monkeypatch
):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(UserError, match=r"0 MB are free on this disk, and .* need 0 MB; see --out"):
        fit(parse_config(tiny), tmp_path, "run")
    assert not (tmp_path / "run").exists()


SMALL_CIFAR = TINY | {
    "model": {"depth": 20, "stem": "cifar3", "shortcut": "zero-pad"},
    "data": {"name": "cifar10", "batch_size": 25, "limit": 500},
    "augmentation": {"train": [{"random_crop": {"padding": 4}}, "horizontal_flip", "normalize"]},
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "optimizer", "averages"),
    [
        ("digits", "momentum", True),
        ("digits", "adamw", False),
        ("cifar10", "momentum", False),
        ("cifar10", "adamw", True),
    ],
)
def test_killed_ten_times(tiny, tmp_path, data, optimizer, averages):
    """SIGKILL at ten random moments, in steps, in saves and in evaluations.

    A checkpoint is saved after every step, so that most of the time is spent saving.
    """
    if data == "cifar10":
        if "RESNET_FIT_DATA" not in os.environ:
            pytest.skip("needs the CIFAR-10 archive; see README.md")
        tiny = SMALL_CIFAR
    tiny = tiny | {
        "optimizer": OPTIMIZERS[optimizer],
        "training": {"epochs": 12},
        "callbacks": {"weight_average": {"decay": 0.99} if averages else None},
        "checkpoint": {"every_steps": 1},
    }
    file = tmp_path / "experiment.yaml"
    file.write_text(dump(tiny))
    whole = fit(parse_config(tiny), tmp_path, "whole").folder
    rng = random.Random(optimizer)
    killed = tmp_path / "killed"
    process = start("--config", file, "--output", tmp_path, "--name", "killed")
    for _ in range(10):
        there = saved_step(killed) + rng.randrange(3, 15)
        wait_for(partial(is_beyond, killed, there), process)
        time.sleep(rng.uniform(0, 0.2))
        assert process.poll() is None
        process.kill()
        process.communicate()
        assert saved_step(killed) < saved_step(whole), "it was killed before its last step"
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
