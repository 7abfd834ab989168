"""Runs of several processes as a user starts them, and what they come to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

import resnet_fit
from resnet_fit.networks.weights import read_tensors

# All that makes steps and epochs differ: each has once been wrong over processes somewhere.
CONFIG: dict[str, Any] = {
    "model": {"depth": [1, 1], "stem": "cifar", "width": 8, "stochastic_depth": 0.2},
    "data": {"name": "digits", "batch_size": 50, "repeats": 2, "eval_batch_size": 70},
    "augmentation": {
        "train": [{"random_crop": {"padding": 1}}, "normalize"],
        "mix": {"mixup": 0.2, "cutmix": 1.0},
        "progressive": {"start": 6, "step": 1},
    },
    "optimizer": {"name": "adamw", "learning_rate": 0.003, "weight_decay": 0.05},
    "schedule": {"name": "cosine", "warmup_epochs": 1},
    "training": {"epochs": 3, "accumulate": 2},
    "callbacks": {"weight_average": {"decay": 0.9}, "flip_average": {}, "visualdl": None},
    "checkpoint": {"monitor": "ema_top1", "every_steps": 4},
}
ENVIRONMENT = os.environ | {
    "OMP_NUM_THREADS": "1",  # sums of several threads are rounded otherwise
    "PYTHONPATH": str(Path(resnet_fit.__file__).parents[1]),
}
ENVIRONMENT.pop("PYTEST_XDIST_WORKER", None)
PATIENCE = 300


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "resnet_fit", *map(str, arguments)]


def start(words: list[str], folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        words,
        cwd=folder,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(words: list[str], folder: Path, code: int = 0) -> str:
    process = start(words, folder)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, err + out
    return err


def contents(folder: Path) -> dict[str, Any]:
    """What a run has come to, without times."""
    found: dict[str, Any] = {}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        names = ("step", "learning_rate", "train", "eval")
        found[f"epoch {row['epoch']}"] = {name: row[name] for name in names}
    last = folder / "checkpoints" / "last"
    for name in ("model.pdparams", "average.pdparams"):
        if (last / name).exists():
            tensors = read_tensors(last / name)
            found |= {f"{name} {key}": value.tobytes() for key, value in tensors.items()}
    with np.load(last / "optimizer.npz") as arrays:
        found |= {f"optimizer {key}": arrays[key].tobytes() for key in arrays}
    state = json.loads((last / "state.json").read_text())
    return found | {name: state[name] for name in ("schedule", "loader", "checkpoint")}


def different(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return [key for key in one.keys() | other.keys() if one.get(key) != other.get(key)]


def children(pid: int) -> list[int]:
    """The processes that one has started, in that order."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def training_of(folder: Path, name: str, prelude: str = "") -> list[str]:
    """A program that trains as `resnet-fit` does, after a prelude, as the words that start it."""
    main = "from resnet_fit import cli\nraise SystemExit(cli.main())\n"
    (folder / f"{name}.py").write_text(f"{prelude}\n{main}")
    return [f"{name}.py", "--config", "config.yaml", "--name", name]


def by_paddle(folder: Path, *words: str, **options: object) -> list[str]:
    """Words that start a program under Paddle's launcher, two processes by default."""
    given = {"nproc_per_node": 2, "log_dir": folder / f"logs-{words[0]}"} | options
    settings = [f"--{name}={value}" for name, value in given.items()]
    return [sys.executable, "-m", "paddle.distributed.launch", *settings, *words]
