"""Runs that SIGKILL ends at random moments, again and again, end as runs that nothing stopped.

    python tests/training/test_killed.py 100 --report killed.json

draws so many combinations of settings, and of each compares a run that was killed and resumed with
one that was not: weights, averages, optimizer, state, metrics and curves, bit for bit. Its report
has the settings, the kills, and the result of each case; the exit code is 1 if a case failed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

TESTS = Path(__file__).resolve().parents[1]
CLASSES, IMAGES = 3, 60
PATIENCE = 120.0  # seconds that a run of a second may take on a busy machine


@pytest.mark.slow
def test_twenty_random_cases(tmp_path):
    """In a process of its own, which forks and so must not have computed anything."""
    report = tmp_path / "report.json"
    subprocess.run(
        [sys.executable, __file__, "20", "--report", report, "--folder", tmp_path], timeout=1800
    )
    cases = json.loads(report.read_text())["cases"]
    assert [case for case in cases if case["result"] != "equal"] == []
    assert len(cases) == 20
    assert sum(case["resumed"] for case in cases) >= 20


# --- what is drawn ------------------------------------------------------------------------------


def draw(rng: random.Random, photos: Path) -> dict[str, Any]:
    """A config of 3 epochs of 5 to 13 steps, and how to make some of its batches NaN."""
    folder = rng.random() < 0.4
    size = 16 if folder else 8
    accumulate = rng.choice([1, 1, 2, 3])
    skip = accumulate == 1 and rng.random() < 0.4
    augment: list[Any] = ["horizontal_flip", "normalize"]
    if rng.random() < 0.5:
        augment.insert(0, {"random_crop": {"padding": 1}})
    if folder:
        augment.insert(0, {"random_resized_crop": {"size": size}})
    data: dict[str, Any] = {
        "batch_size": rng.randint(5, 9) if folder else rng.randint(12, 30),
        "eval_batch_size": rng.choice([20, 50]),
        "repeats": rng.choice([1, 1, 2, 3]),
        "sampler": rng.choice(["shuffled", "balanced"]),
        "drop_last": rng.random() < 0.3,
    }
    if folder:
        data |= {"name": "folder", "path": str(photos), "validation": 0.25}
        data |= {"workers": rng.choice([0, 1, 2])}
        if rng.random() < 0.3:
            data["cache"] = {"shorter_side": 20, "path": str(photos.parent / "cache")}
    else:
        data |= {"name": "digits", "limit": 150}
    evaluation: list[Any] = ["normalize"]
    if folder:
        evaluation = [{"resize": {"size": 20}}, {"center_crop": {"size": size}}, "normalize"]
    optional = {
        "mix": {"mixup": rng.choice([0.0, 0.3]), "cutmix": 1.0, "share": 0.8},
        "progressive": {"start": size // 2, "step": 2},
    }
    chosen = {key: value for key, value in optional.items() if rng.random() < 0.4}
    training: dict[str, Any] = {
        "epochs": 3,
        "accumulate": accumulate,
        "on_nan": "skip" if skip else "stop",
        "backend": rng.choice(["onednn", "onednn", "paddle"]),
    }
    callbacks: dict[str, Any] = {"visualdl": {"every_steps": rng.randint(2, 5)}}
    if rng.random() < 0.4:
        callbacks["flip_average"] = {}
    if rng.random() < 0.6:
        callbacks["weight_average"] = {"decay": 0.8, "warm_up": rng.random() < 0.5}
    if rng.random() < 0.3:
        callbacks["early_stopping"] = {"patience": 1}
    return {
        "model": {
            "depth": [1, 1],
            "stem": "cifar",
            "width": 4,
            "stochastic_depth": rng.choice([0.0, 0.4]),
        },
        "data": data,
        "augmentation": {"train": augment, "eval": evaluation, **chosen},
        "optimizer": rng.choice(
            [
                {"name": "momentum", "learning_rate": 0.05, "weight_decay": 1e-3},
                {"name": "adamw", "learning_rate": 0.01, "weight_decay": 0.1},
                {"name": "muon", "learning_rate": 0.02, "head_and_norm_lr": 0.1},
                {"name": "lamb", "learning_rate": 0.01, "weight_decay": 0.1},
            ]
        ),
        "schedule": rng.choice(
            [
                {"name": "constant", "warmup_epochs": 0.5},
                {"name": "one_cycle"},
                {"name": "cosine"},
                {"name": "multi_step", "at_epochs": [1, 1.5]},
            ]
        ),
        "loss": {"label_smoothing": rng.choice([0.0, 0.1])},
        "training": training,
        "callbacks": callbacks,
        "checkpoint": {
            "every_steps": rng.choice([None, 1, 2, 3, 4]),
            "keep": rng.choice([0, 2]),
            **rng.choice([{"monitor": "loss"}, {"monitor": "top1"}]),
        },
    }


def make_photos(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(IMAGES):
        file = folder / f"class-{i % CLASSES}" / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        size = tuple(rng.integers(20, 40, 2).tolist())
        Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8)).resize(size).save(file)


# --- runs, each in a process of its own ---------------------------------------------------------


def start(arguments: list[str], log: Path, poisoned: bool) -> int:
    """Run the command line in a fork, which need not import Paddle again; returns its id."""
    process = os.fork()
    if process:
        return process
    code = 70
    try:
        output = os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        os.dup2(output, 1)
        os.dup2(output, 2)
        if poisoned:
            poison_batches()
        from resnet_fit.cli import main

        code = main(arguments)
        sys.stdout.flush()
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)


def poison_batches() -> None:
    """Make one batch in six NaN: by its content, so that it is the same one after a resume."""
    import paddle

    train = paddle.Model.train_batch

    def poisoned(model: Any, inputs: Any, *rest: Any) -> Any:
        images = np.asarray(inputs[0])
        if zlib.crc32(images.tobytes()) % 6 == 0:
            inputs = [np.full_like(images, np.nan)]
        return train(model, inputs, *rest)

    paddle.Model.train_batch = poisoned


def never() -> bool:
    return False


def ended(process: int, seconds: float, too_late: Callable[[], bool] = never) -> int | None:
    """The exit code of a process that ends in time, or None."""
    deadline = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= deadline or too_late():
            return None
        time.sleep(0.002)


def kill(process: int) -> None:
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)


class Failed(Exception):
    """A run that did not end as it should, with what it said."""


def run_whole(arguments: list[str], log: Path, poisoned: bool) -> None:
    process = start(arguments, log, poisoned)
    code = ended(process, PATIENCE)
    if code is None:
        kill(process)
    if code != 0:
        raise Failed(f"exit code {code}: {log.read_text()[-2000:]}")


# When to kill: after so many new checkpoints, and so many seconds.
Moment = tuple[int, float]


def draw_moments(rng: random.Random, seconds: float) -> list[Moment]:
    """Of a run that takes so long: the first soon, the others mostly amid what is left of it."""
    moments = [(1, rng.uniform(0, 0.05))]
    for _ in range(rng.randint(1, 5)):
        amid = rng.random() < 0.8
        moments.append(
            (rng.randint(1, 4), rng.uniform(0, 0.1)) if amid else (0, rng.random() * seconds)
        )
    return moments


def run_killed(
    arguments: list[str], run: Path, log: Path, poisoned: bool, moments: Iterator[Moment]
) -> tuple[int, int]:
    """Start a run and kill it at each of the moments; returns kills, and resumes from them."""
    kills = resumed = 0
    while True:
        saved = last_checkpoint(run) != 0
        if run.exists() and not saved:
            shutil.rmtree(run)  # killed before its first checkpoint: there is nothing to go on from
        resumed += saved
        process = start(["--resume", str(run)] if saved else arguments, log, poisoned)
        moment = next(moments, None)
        code = ended(process, PATIENCE) if moment is None else ended_by(process, run, *moment)
        if code is None:
            kill(process)
            if moment is None:
                raise Failed(f"not done after {PATIENCE:.0f} seconds: {log.read_text()[-2000:]}")
            kills += 1
        elif code == 0:
            return kills, resumed
        else:
            raise Failed(f"exit code {code} after {kills} kills: {log.read_text()[-2000:]}")


def ended_by(process: int, run: Path, saves: int, seconds: float) -> int | None:
    """The exit code of a process that ends before a moment, or None."""
    for _ in range(saves):
        before = last_checkpoint(run)
        code = ended(process, PATIENCE, partial(is_another, run, before))
        if code is not None:
            return code
    return ended(process, seconds)


def is_another(run: Path, before: int) -> bool:
    return last_checkpoint(run) != before


def last_checkpoint(run: Path) -> int:
    """A number that is another one for each checkpoint; 0 while there is none."""
    for name in ("last", ".last.previous"):
        with suppress(OSError):
            return (run / "checkpoints" / name / "state.json").stat().st_mtime_ns
    return 0


# --- comparison ---------------------------------------------------------------------------------


def assert_equal(ours: Path, theirs: Path) -> None:
    from test_resume import assert_equal_runs

    assert_equal_runs(ours, theirs)
    checkpoints = [
        {path.name for path in (run / "checkpoints").iterdir() if not path.name.startswith(".")}
        for run in (ours, theirs)
    ]
    assert checkpoints[0] == checkpoints[1]
    for name in sorted(checkpoints[0]):
        assert state(ours, name) == state(theirs, name), name


def state(run: Path, checkpoint: str) -> dict[str, Any]:
    """A checkpoint's state without times; rows and curves are compared by themselves."""
    value = json.loads((run / "checkpoints" / checkpoint / "state.json").read_text())
    clock = {key: number for key, number in value["clock"].items() if "seconds" not in key}
    return {k: v for k, v in value.items() if k not in ("history", "visualdl")} | {"clock": clock}


# --- all of it ----------------------------------------------------------------------------------


def try_case(seed: str, folder: Path, photos: Path) -> dict[str, Any]:
    from resnet_fit.config.document import dump

    rng = random.Random(seed)
    config = draw(rng, photos)
    poisoned = config["training"]["on_nan"] == "skip"
    case: dict[str, Any] = {"seed": seed, "config": config, "kills": 0, "resumed": 0}
    folder.mkdir(parents=True)
    file, whole, killed = folder / "experiment.yaml", folder / "whole", folder / "killed"
    file.write_text(dump(config), encoding="utf-8")

    def arguments(run: Path) -> list[str]:
        return ["--config", str(file), "--output", str(folder), "--name", run.name]

    try:
        began = time.monotonic()
        run_whole(arguments(whole), folder / "whole.log", poisoned)
        seconds = time.monotonic() - began
        moments = draw_moments(rng, seconds)
        case["kills"], case["resumed"] = run_killed(
            arguments(killed), killed, folder / "killed.log", poisoned, iter(moments)
        )
        assert_equal(killed, whole)
        case["result"] = "equal"
    except (Failed, AssertionError):
        case["result"] = traceback.format_exc()
    return case


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", type=int, nargs="?", default=20)
    parser.add_argument("--seed", default="0", help="another one draws other cases")
    parser.add_argument("--report", type=Path, help="a JSON file of all cases")
    parser.add_argument("--folder", type=Path, help="for the runs; of equal ones none stay")
    parser.add_argument("--only", type=int, help="this case alone")
    options = parser.parse_args()
    sys.path.insert(0, str(TESTS))  # conftest, as pytest has it
    from resnet_fit.runtime import import_visualdl, prepare_environment

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    prepare_environment()
    # Once, for all forks. None of these starts a thread, which a fork would be without.
    import sklearn.datasets  # noqa: F401

    import resnet_fit.runs.fit  # noqa: F401

    import_visualdl()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="killed-"))
    photos = folder / "photos"
    make_photos(photos)
    cases = []
    numbers = range(options.cases) if options.only is None else [options.only]
    for number in numbers:
        runs = folder / f"case-{number}"
        cases.append(try_case(f"{options.seed}-{number}", runs, photos))
        equal = cases[-1]["result"] == "equal"
        if equal:
            shutil.rmtree(runs)
        print(
            f"case {number}: {cases[-1]['kills']} kills, {cases[-1]['resumed']} resumed: "
            f"{'equal' if equal else cases[-1]['result'][-3000:]}",
            flush=True,
        )
        if options.report:
            write_report(options.report, cases)
    sys.exit(any(case["result"] != "equal" for case in cases))


def write_report(file: Path, cases: list[dict[str, Any]]) -> None:
    report = {
        "equal": sum(case["result"] == "equal" for case in cases),
        "kills": sum(case["kills"] for case in cases),
        "resumed": sum(case["resumed"] for case in cases),
        "cases": cases,
    }
    file.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
