"""Which weights of a checkpoint are meant; answers without Paddle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from resnet_fit.checkpoints.files import AVERAGE, CONFIG, DATA, WEIGHTS, find_by_name
from resnet_fit.errors import UserError
from resnet_fit.networks.found_weights import is_of_average
from resnet_fit.runs.config import Config
from resnet_fit.runs.resuming import checkpoint_config


@dataclass(frozen=True)
class Chosen:
    """A checkpoint of a run.

    Attributes:
        folder: of the checkpoint.
        config: that it was trained by.
        weights: the name of the file that was asked for.
    """

    folder: Path
    config: Config
    weights: str


def choose(
    run: Path, checkpoint: str, average: bool | None, whole: Sequence[str] = (CONFIG, DATA)
) -> Chosen:
    """Find a checkpoint, and which of its weights are meant.

    Args:
        run: the folder of the run.
        checkpoint: ``best``, ``last`` or ``epoch-5``.
        average: as of `weights_name`.
        whole: files whose checksums must be right.

    Raises:
        UserError: no such run, checkpoint or average, or a damaged file.
    """
    found = find_by_name(run, checkpoint, whole)
    config = checkpoint_config(found)
    return Chosen(found, config, weights_name(config, average))


def weights_name(config: Config, average: bool | None) -> str:
    """The file of a checkpoint with its weights or, where ``average`` is true, their average.

    By default the average where the best epoch was chosen by it.

    Raises:
        UserError: the run keeps no average.
    """
    kept = config.averages_weights
    if average and not kept:
        raise UserError("average: this run was trained without callbacks.weight_average")
    if average is None:
        average = kept and is_of_average(config.checkpoint.monitor)
    return AVERAGE if average else WEIGHTS
