"""The folder of a run: its name, what is written to it first, and whether there is room for it."""

from __future__ import annotations

import math
import re
import shutil
from itertools import count
from pathlib import Path

from resnet_fit.checkpoints.files import CONFIG, DATA
from resnet_fit.errors import UserError, require
from resnet_fit.files import write_text
from resnet_fit.runs.config import dump_config
from resnet_fit.runs.experiment import Experiment


def check_name(output: Path, name: str, numbered: bool) -> None:
    """Refuse the name of a run before anything is built.

    Raises:
        UserError: it has other characters than a folder's name should have, or is taken.
    """
    right = re.fullmatch(r"[\w.+=@-]+", name) is not None and name not in (".", "..")
    require(right, "--name", name, "letters, digits and any of . + = @ - _")
    if not numbered and (output / name).exists():
        raise _taken(output / name)


def make_folder(output: Path, name: str, numbered: bool) -> Path:
    """Make the folder of a new run.

    Args:
        output: the folder that runs go to.
        name: of the run.
        numbered: whether a number follows a name that is taken, as of runs that began together.

    Raises:
        UserError: it cannot be made there.
    """
    for number in count(1):
        folder = output / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            if not folder.exists():
                reason = f"cannot be made ({error.strerror}); see --output"
                raise UserError(f"{folder}: {reason}") from None
            if not numbered:
                raise _taken(folder) from None
        else:
            return folder
    raise AssertionError("count has no end")


def _taken(folder: Path) -> UserError:
    return UserError(f"{folder}: exists already, and a run is never overwritten; use another name")


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
    tensors = experiment.model.network.state_dict().values()
    weights = sum(math.prod(tensor.shape) for tensor in tensors)  # frozen ones as well
    trained = experiment.counts["parameters"]
    return 4 * (weights * (1 + config.averages_weights) + trained * config.optimizer.slots)


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
