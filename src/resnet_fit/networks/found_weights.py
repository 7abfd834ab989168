"""Finds the weights file in a run's or checkpoint's folder. Does not import Paddle."""

from __future__ import annotations

import os
from pathlib import Path

from resnet_fit.config.document import read_document
from resnet_fit.errors import UserError
from resnet_fit.home import expand

# Where a checkpoint is in its own folder, in that of checkpoints and in that of a run; the best one
# first.
PLACES = ("", "best", "last", "checkpoints/best", "checkpoints/last")
WEIGHTS, AVERAGE, CONFIG = "model.pdparams", "average.pdparams", "config.yaml"


def find_weights(path: str | os.PathLike[str]) -> Path:
    """The weights file that ``path`` means: itself, or the one in a checkpoint's or run's folder.

    Of a run the best checkpoint is taken, or the last one where there is no best one yet; of a
    checkpoint the averaged weights, if the best epoch was chosen by them.

    Raises:
        UserError: a folder without such a file.
    """
    folder = expand(path)
    if not folder.is_dir():
        return folder
    for place in PLACES:
        checkpoint = folder / place
        if (checkpoint / WEIGHTS).is_file():
            return checkpoint / (AVERAGE if _is_chosen_by_average(checkpoint) else WEIGHTS)
    raise UserError(
        f"{folder} is a folder without weights: expected a file, a checkpoint's folder or a run's."
    )


def is_of_average(monitor: str) -> bool:
    """Whether a metric that epochs are compared by is of the averaged weights."""
    return monitor.startswith("ema_")


def _is_chosen_by_average(checkpoint: Path) -> bool:
    config = checkpoint / CONFIG
    if not ((checkpoint / AVERAGE).is_file() and config.is_file()):
        return False
    settings = read_document(config).value.get("checkpoint") or {}
    return is_of_average(str(settings.get("monitor")))
