"""A run that goes on is compared with what it was, before anything is trained or written.

Its config is compared here, its data where they are opened (`make_loaders`), and its network where
the checkpoint is loaded (`load_whole`). Nothing here imports Paddle, so that a mistake is
answered at once.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnet_fit.checkpoints.files import CONFIG, find_checkpoint, last_of
from resnet_fit.config.differences import differences
from resnet_fit.config.document import read_document
from resnet_fit.config.problems import Problem, raise_problems, shown
from resnet_fit.data.make_loaders import sizes_by_epoch
from resnet_fit.errors import UserError, listed, require
from resnet_fit.home import expand
from resnet_fit.runs.config import Config, load_config, resolve, without_warnings

if TYPE_CHECKING:
    from resnet_fit.runs.experiment import Experiment

# What may differ when a run goes on: how long, by what means and where, but not what is computed.
# Data at another path must be the same data.
CHANGEABLE = (
    "training.epochs",
    "training.device",
    "training.backend",
    "training.compile",
    "data.path",
    "data.compare",
    "data.workers",
    "data.cache.path",
    "checkpoint.every_minutes",
    "checkpoint.every_steps",
    "checkpoint.keep",
    "callbacks.visualdl",
    "callbacks.visualdl.every_steps",
    "callbacks.visualdl.images",
    "callbacks.visualdl.histograms",
    "callbacks.visualdl.graph",
    "callbacks.adapt_threads",
    "callbacks.adapt_threads.every",
)


def load_run_config(folder: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read the experiment of a run that is to go on.

    The run's own ``config.yaml``, which may have been edited, and the overrides are compared with
    the config that its last checkpoint was trained by.

    Raises:
        UserError: not a run's folder, no checkpoint, or, in one line each, the settings that would
            change the run.
    """
    folder = expand(folder)
    file = folder / CONFIG
    if not file.is_file():
        raise UserError(f"{folder}: not a run's folder: there is no {CONFIG} in it")
    document = read_document(file)
    config = resolve(document, overrides)
    kept = checkpoint_config(find_checkpoint(last_of(folder), [CONFIG]))
    changed = [
        (path, f"received {shown(now)}, expected {shown(was)}, as this run was trained")
        for path, was, now in differences(kept.model_dump(), config.model_dump())
        if ".".join(map(str, path)) not in CHANGEABLE
    ]
    if changed:
        path, message = changed[-1]
        changed[-1] = path, f"{message}; a run that goes on may change {listed(CHANGEABLE)}"
    raise_problems([Problem(*change) for change in changed], document)
    return config


def checkpoint_config(checkpoint: Path) -> Config:
    """The config that a checkpoint was trained by."""
    with without_warnings():  # shown when the run began
        return load_config(checkpoint / CONFIG)


def require_epochs(config: Config, state: dict[str, Any]) -> None:
    """Refuse to make a run shorter than it is.

    Raises:
        UserError: fewer epochs than have begun.
    """
    begun, asked = state["clock"]["epoch"], config.training.epochs
    require(asked >= begun, "training.epochs", asked, f"{begun} or more, which this run has begun")


def follow_epochs(experiment: Experiment, state: dict[str, Any], kept: Config) -> None:
    """Let the learning rate follow another number of epochs, and warn of what jumps by it."""
    config = experiment.config
    was, now = kept.training.epochs, config.training.epochs
    if was == now:
        return
    changed = f"training.epochs {now} instead of {was}: "
    schedule = experiment.model._optimizer._learning_rate
    before, schedule.last_lr = schedule.last_lr, schedule.get_lr()
    if not math.isclose(before, schedule.last_lr, rel_tol=1e-6):
        warnings.warn(
            f"{changed}the learning rate of {config.schedule.part_name} goes from {before:.4g} to "
            f"{schedule.last_lr:.4g} at once",
            stacklevel=3,
        )
    clock, full_size = state["clock"], experiment.loaders.full_size
    epoch = clock["epoch"] - 1 if clock["within_epoch"] else clock["epoch"]
    sizes = [sizes_by_epoch(c, full_size) for c in (kept, config)]
    pixels = [size(epoch) for size in sizes if size is not None]
    if len(set(pixels)) > 1:
        warnings.warn(
            f"{changed}images go from {pixels[0]} to {pixels[1]} pixels a side at once",
            stacklevel=3,
        )
