"""Runs of several processes as a user starts them, and what they come to."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
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
# Of image files in a folder photos/.
PHOTOS: dict[str, Any] = {
    "model": {"depth": [1, 1], "stem": "cifar", "width": 4},
    "data": {"name": "folder", "path": "photos", "batch_size": 6, "eval_batch_size": 4},
    "augmentation": {
        "train": [{"random_resized_crop": {"size": 12}}, "normalize"],
        "eval": [{"resize": {"size": 14}}, {"center_crop": {"size": 12}}, "normalize"],
    },
    "optimizer": {"name": "momentum", "learning_rate": 0.05},
    "training": {"epochs": 2, "accumulate": 2},
    "callbacks": {"visualdl": None},
}
ENVIRONMENT = os.environ | {
    "OMP_NUM_THREADS": "1",  # sums of several threads are rounded otherwise
    "PYTHONPATH": str(Path(resnet_fit.__file__).parents[1]),
}
ENVIRONMENT.pop("PYTEST_XDIST_WORKER", None)
PATIENCE = 300

Running = subprocess.Popen[str]


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


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def side_by_side(
    folders: Sequence[Path], words: list[str], *more: list[str], machines: int = 2
) -> list[Running]:
    """Two processes by the variables alone that Paddle's launcher sets, which is faster.

    Args:
        folders: where each runs.
        words: the command.
        more: of the command of each.
        machines: on how many they pass for running.
    """
    ports = [free_port() for _ in range(3)]
    endpoints = [f"127.0.0.1:{port}" for port in ports[1:]]
    shared = {
        "PADDLE_MASTER": f"127.0.0.1:{ports[0]}",
        "PADDLE_TRAINERS_NUM": "2",
        "PADDLE_LOCAL_SIZE": str(2 // machines),
        "PADDLE_TRAINER_ENDPOINTS": ",".join(endpoints),
    }
    processes = []
    for rank, folder in enumerate(folders):
        own = {"PADDLE_TRAINER_ID": str(rank), "PADDLE_CURRENT_ENDPOINT": endpoints[rank]}
        mine = [*words, *(more[rank] if more else [])]
        processes.append(started(mine, folder, shared | own))
    return processes


def started(words: list[str], folder: Path, variables: dict[str, str] | None = None) -> Running:
    return subprocess.Popen(
        words,
        cwd=folder,
        env=ENVIRONMENT | (variables or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(processes: list[Running]) -> list[tuple[int, str]]:
    """The exit code and the output of each."""
    outputs = [process.communicate(timeout=PATIENCE)[0] for process in processes]
    return [(process.returncode, out) for process, out in zip(processes, outputs, strict=True)]
