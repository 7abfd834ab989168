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
        average: whether the averaged weights are meant; by default where the best epoch was chosen
            by them.
        whole: files whose checksums must be right.

    Raises:
        UserError: no such run, checkpoint or average, or a damaged file.
    """
    found = find_by_name(run, checkpoint, whole)
    config = checkpoint_config(found)
    # A callback that a program hands over keeps an average as well: only the files tell of it.
    kept = config.averages_weights or (found / AVERAGE).is_file()
    if average and not kept:
        raise UserError("average: this run was trained without callbacks.weight_average")
    if average is None:
        average = kept and is_of_average(config.checkpoint.monitor)
    return Chosen(found, config, AVERAGE if average else WEIGHTS)
