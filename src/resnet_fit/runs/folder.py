"""The folder of a run: its name, what is written to it first, and whether there is room for it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from resnet_fit.checkpoints.files import CONFIG, DATA
from resnet_fit.errors import UserError, require
from resnet_fit.files import write_text
from resnet_fit.runs.config import dump_config
from resnet_fit.runs.experiment import Experiment


def new_folder(output: Path, name: str) -> Path:
    """Where a run goes; refused if something is there already."""
    right = re.fullmatch(r"[\w.+=@-]+", name) is not None and name not in (".", "..")
    require(right, "--name", name, "letters, digits and any of . + = @ - _")
    folder = output / name
    if folder.exists():
        raise UserError(
            f"{folder}: exists already, and a run is never overwritten; use another name"
        )
    return folder


def make_folder(folder: Path) -> None:
    """Make the folder of a new run.

    Raises:
        UserError: it cannot be made there.
    """
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be made ({error.strerror}); see --output") from None


def documents(experiment: Experiment) -> dict[str, str]:
    """What a run was asked for and trained on, by file name: for its folder and its checkpoints."""
    return {
        CONFIG: dump_config(experiment.config),
        DATA: experiment.loaders.record.to_json(),
    }


def write_documents(folder: Path, experiment: Experiment) -> None:
    for name, text in documents(experiment).items():
        write_text(folder / name, text)


def checkpoint_bytes(experiment: Experiment) -> int:
    """About how large a checkpoint is: weights, their average, and the optimizer's state."""
    config = experiment.config
    averages = config.averages_weights
    return 4 * experiment.counts["parameters"] * (1 + config.optimizer.slots + averages)


def require_space(folder: Path, experiment: Experiment) -> None:
    """Refuse to start a run whose checkpoints cannot fit on the disk.

    Raises:
        UserError: with the room there is and the room there must be.
    """
    # last, the one before, the next while it is written, best, and those that are kept.
    needed = checkpoint_bytes(experiment) * (4 + experiment.config.checkpoint.keep)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder}: {free / 1e6:,.0f} MB are free on this disk, and the checkpoints of this "
            f"run need {needed / 1e6:,.0f} MB; see --output"
        )
