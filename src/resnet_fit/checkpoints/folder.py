"""A checkpoint: one folder that is whole or not there; see `checkpoints.files` for what is in it.

Nothing in it is executed when it is read.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import paddle

from resnet_fit.checkpoints.files import (
    AVERAGE,
    CHECKSUMS,
    OPTIMIZER,
    STATE,
    WEIGHTS,
    find_checkpoint,
)
from resnet_fit.checkpoints.optimizer_state import Arrays, get_optimizer_state, set_optimizer_state
from resnet_fit.errors import RunFailed, UserError
from resnet_fit.files import beside, digest_of, json_text, replacing, sync
from resnet_fit.networks.weights import read_tensors, set_weights


class Average(Protocol):
    """Weights beside those of the network, to be saved with them."""

    def weights(self) -> dict[str, paddle.Tensor]: ...

    def set_weights(self, weights: Arrays) -> None: ...

    def withdraw(self) -> None: ...


def save_checkpoint(
    folder: Path,
    model: paddle.Model,
    state: dict[str, Any],
    average: Average | None = None,
    documents: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write a checkpoint beside ``folder`` and put it in its place, with texts by file name.

    At every moment ``folder`` or ``.<name>.previous`` beside it is whole.

    Raises:
        RunFailed: if it cannot be written; what stood there before stays.
    """
    with _replacing(folder) as part:
        paddle.save(model.network.state_dict(), str(part / WEIGHTS))
        if average is not None:
            paddle.save(average.weights(), str(part / AVERAGE))
        arrays: dict[str, Any] = get_optimizer_state(model._optimizer, model.network)
        np.savez(part / OPTIMIZER, **arrays)
        state_text = json_text(state | _schedule_and_scaler(model), is_strict=False)
        texts = {STATE: state_text, **documents}
        for name, text in texts.items():
            (part / name).write_text(text, encoding="utf-8")
        checksums = {f.name: digest_of(f, "sha256") for f in sorted(part.iterdir())}
        (part / CHECKSUMS).write_text(json_text(checksums), encoding="utf-8")
        for file in part.iterdir():
            sync(file)


def load_checkpoint(
    folder: Path, model: paddle.Model, average: Average | None = None
) -> tuple[dict[str, Any], Path]:
    """Put a checkpoint's weights, optimizer and schedule into a prepared model.

    Returns:
        its state, and the folder it came from: the one before, where ``folder`` is damaged or a
        save was interrupted.

    Raises:
        UserError: there is none, or no whole one; the message says what is wrong with each. Or it
            is of another network.
    """
    found = find_checkpoint(folder, needed_files(average is not None))
    return load_whole(found, model, average), found


def needed_files(averages: bool) -> list[str]:
    """The files that `load_whole` reads."""
    return [WEIGHTS, OPTIMIZER, STATE, *([AVERAGE] if averages else [])]


def describe_last(folder: Path) -> str:
    """Where the last checkpoint is and what it is of, for the message of a run that failed."""
    for candidate in (folder, beside(folder, "previous")):
        with suppress(OSError, ValueError, KeyError):
            clock = json.loads((candidate / STATE).read_text(encoding="utf-8"))["clock"]
            epoch, step = clock["epoch"], clock["step"]
            return f"the last checkpoint, {candidate}, is of epoch {epoch}, step {step}"
    return "no checkpoint was saved before"


def copy_checkpoint(source: Path, target: Path) -> None:
    """Make ``target`` the same checkpoint, with files of its own.

    Hard links would spare the time and the space of a copy, and whoever writes into one folder
    would damage the other.

    Raises:
        RunFailed: if it cannot be written; what stood there before stays.
    """
    with _replacing(target) as part:
        for file in source.iterdir():
            shutil.copyfile(file, part / file.name)
            sync(part / file.name)
    shutil.rmtree(beside(target, "previous"), ignore_errors=True)


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """An empty folder that takes the place of the checkpoint ``folder`` once it is filled."""
    try:
        with replacing(folder) as part:
            yield part
    except OSError as error:
        raise RunFailed(
            f"{folder}: the checkpoint could not be written ({error.strerror or error}); "
            "the one before it is untouched"
        ) from error


def load_whole(folder: Path, model: paddle.Model, average: Average | None) -> dict[str, Any]:
    """`load_checkpoint` from a folder that `find_checkpoint` found; returns the state alone."""
    set_weights(model.network, read_tensors(folder / WEIGHTS), folder / WEIGHTS)
    if average is not None:
        average.set_weights(read_tensors(folder / AVERAGE))
    try:
        with np.load(folder / OPTIMIZER, allow_pickle=False) as arrays:
            accumulators = dict(arrays)
    except (zipfile.BadZipFile, ValueError) as error:
        raise UserError(f"{folder / OPTIMIZER}: cannot be read: {error}") from None
    state = read_state(folder)
    _set_schedule_and_scaler(model, state)
    set_optimizer_state(model._optimizer, model.network, accumulators)
    metrics = [m for m in model._metrics if hasattr(m, "set_state_dict")]
    for metric, saved in zip(metrics, state["metrics"], strict=True):
        metric.set_state_dict(saved)
    return state


def read_state(folder: Path) -> dict[str, Any]:
    """Where the training of a checkpoint stands."""
    return json.loads((folder / STATE).read_text(encoding="utf-8"))


def _schedule_and_scaler(model: paddle.Model) -> dict[str, Any]:
    schedule, scaler = model._optimizer._learning_rate, getattr(model, "_scaler", None)
    is_schedule = isinstance(schedule, paddle.optimizer.lr.LRScheduler)
    return {
        "schedule": schedule.state_dict() if is_schedule else None,
        "scaler": _plain(scaler.state_dict()) if scaler is not None else None,
    }


def _set_schedule_and_scaler(model: paddle.Model, state: dict[str, Any]) -> None:
    if state["schedule"] is not None:
        model._optimizer._learning_rate.set_state_dict(state["schedule"])
    if state["scaler"] is not None:
        if model._scaler is None:  # Paddle makes it at the first step only, too late to be loaded
            model._scaler = paddle.amp.GradScaler()
        saved = state["scaler"]
        saved["scale"] = np.array(saved["scale"], "float32")
        model._scaler.load_state_dict(saved)


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in state.items()}
