"""Finds the weights file in a run's or checkpoint's folder. Does not import Paddle."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from resnet_fit.config.document import read_document
from resnet_fit.errors import UserError
from resnet_fit.files import beside
from resnet_fit.home import expand

# Where checkpoints are, seen from the folder `checkpoints` and from a run; the best first.
PLACES = ("best", "last", "checkpoints/best", "checkpoints/last")
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
    for checkpoint in _checkpoints(folder):
        if (checkpoint / WEIGHTS).is_file():
            return checkpoint / (AVERAGE if _is_chosen_by_average(checkpoint) else WEIGHTS)
    raise UserError(
        f"{folder} is a folder without weights: expected a file, a checkpoint's folder or a run's."
    )


def _checkpoints(folder: Path) -> Iterator[Path]:
    """Where the checkpoint that is meant may be, in the order in which it is looked for."""
    yield folder
    for place in PLACES:
        yield folder / place
        yield beside(folder / place, "previous")  # all that is left of a save that was killed


def is_of_average(monitor: str) -> bool:
    """Whether a metric that epochs are compared by is of the averaged weights."""
    return monitor.startswith("ema_")


def _is_chosen_by_average(checkpoint: Path) -> bool:
    config = checkpoint / CONFIG
    if not ((checkpoint / AVERAGE).is_file() and config.is_file()):
        return False
    settings = read_document(config).value.get("checkpoint") or {}
    return is_of_average(str(settings.get("monitor")))
