"""A checkpoint: one folder that is whole or not there.

model.pdparams    weights and buffers; `paddle.Model.load("<folder>/model")` opens it
optimizer.npz     accumulators by structured names
state.json        where the training stands
checksums.json    SHA-256 of each of the above
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import nn

from resnet_fit.errors import RunFailed
from resnet_fit.files import sync, write_json
from resnet_fit.training.state import get_optimizer_state

WEIGHTS, OPTIMIZER, STATE, CHECKSUMS = (
    "model.pdparams",
    "optimizer.npz",
    "state.json",
    "checksums.json",
)


def save_checkpoint(
    folder: Path,
    network: nn.Layer,
    optimizer: paddle.optimizer.Optimizer,
    state: dict[str, Any],
) -> None:
    """Write a checkpoint beside ``folder`` and put it in its place.

    At every moment either ``folder`` or ``folder.previous`` is whole.

    Raises:
        RunFailed: if it cannot be written; what stood there before stays.
    """
    part = folder.with_name(f".{folder.name}.part")
    previous = folder.with_name(f"{folder.name}.previous")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        paddle.save(network.state_dict(), str(part / WEIGHTS))
        np.savez(part / OPTIMIZER, **get_optimizer_state(optimizer, network))
        write_json(part / STATE, state)
        write_json(part / CHECKSUMS, {n: _sha256(part / n) for n in (WEIGHTS, OPTIMIZER, STATE)})
        for file in part.iterdir():
            sync(file)
        shutil.rmtree(previous, ignore_errors=True)
        if folder.exists():
            os.replace(folder, previous)
        os.replace(part, folder)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise RunFailed(
            f"{folder}: the checkpoint could not be written ({error.strerror}); "
            "the one before it is untouched"
        ) from error


def copy_checkpoint(source: Path, target: Path) -> None:
    """Make ``target`` the same checkpoint, without a second copy of the data where the disk can."""
    part = target.with_name(f".{target.name}.part")
    previous = target.with_name(f".{target.name}.previous")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(source, part, copy_function=_link_or_copy)
    shutil.rmtree(previous, ignore_errors=True)
    if target.exists():
        os.replace(target, previous)
    os.replace(part, target)
    shutil.rmtree(previous, ignore_errors=True)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def read_state(folder: Path) -> dict[str, Any]:
    return json.loads((folder / STATE).read_text(encoding="utf-8"))


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with open(file, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
