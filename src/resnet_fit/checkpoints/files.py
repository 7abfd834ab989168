"""The files of a checkpoint, and whether they are whole; answers without Paddle.

model.pdparams    weights and buffers; `paddle.Model.load("<folder>/model")` opens it
average.pdparams  the same of averaged weights, where a training averages them
optimizer.npz     accumulators by structured names
state.json        where the training stands
config.yaml       the experiment, in a checkpoint of a run
data.json         what it is trained on, in a checkpoint of a run
checksums.json    SHA-256 of each of the above
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from resnet_fit.errors import UserError, suggest
from resnet_fit.files import beside, digest_of, replaced_in
from resnet_fit.networks.found_weights import AVERAGE as AVERAGE
from resnet_fit.networks.found_weights import CONFIG as CONFIG
from resnet_fit.networks.found_weights import WEIGHTS as WEIGHTS

CHECKPOINTS = "checkpoints"  # the folder of a run that they are in
OPTIMIZER = "optimizer.npz"
STATE = "state.json"
DATA = "data.json"
CHECKSUMS = "checksums.json"


def find_checkpoint(folder: Path, names: Sequence[str]) -> Path:
    """``folder``, or the one before it where ``folder`` is damaged or a save was interrupted.

    Args:
        folder: of a checkpoint.
        names: the files that must be there and whole.

    Raises:
        UserError: there is none, or no whole one; the message says what is wrong with each.
    """
    candidates = (folder, beside(folder, "previous"))
    if not any(candidate.is_dir() for candidate in candidates):
        raise _none_saved(folder)
    problems = []
    for candidate in candidates:
        problem = _damage(candidate, names)
        if problem is None:
            return candidate
        problems.append(problem)
    raise UserError(f"{folder}: no whole checkpoint ({'; '.join(problems)})")


def find_by_name(run: Path, name: str, files: Sequence[str]) -> Path:
    """The checkpoint of a run that is called ``best``, ``last`` or ``epoch-N``.

    Args:
        run: its folder.
        files: that must be there and whole.

    Raises:
        UserError: ``run`` has no checkpoints, none of this name, or no whole one.
    """
    place = run / CHECKPOINTS
    if not place.is_dir():
        raise UserError(f"{run}: not a run's folder: there is no folder {CHECKPOINTS} in it")
    there = replaced_in(place)
    if not there:
        raise _none_saved(place)
    number = re.fullmatch(r"epoch-(\d+)", name)
    full = epoch_name(int(number[1])) if number else name
    if full not in there:
        raise UserError(
            f"{place}: no checkpoint '{name}'.{suggest(name, there)} There are: {', '.join(there)}"
        )
    return find_checkpoint(place / full, files)


def last_of(run: Path) -> Path:
    """The folder of a run's newest checkpoint."""
    return run / CHECKPOINTS / "last"


def epoch_name(epoch: int) -> str:
    """The name of the folder that keeps an epoch's checkpoint."""
    return f"epoch-{epoch:04}"


def epoch_of(folder: Path) -> int:
    """The epoch of a folder that was named by `epoch_name`; 0 for any other."""
    digits = re.fullmatch(r"epoch-([0-9]+)", folder.name)
    epoch = int(digits[1]) if digits else 0
    return epoch if folder.name == epoch_name(epoch) else 0


def _none_saved(folder: Path) -> UserError:
    return UserError(
        f"{folder}: no checkpoint is there; a run that ended before it saved its first one "
        "can only be started anew"
    )


def _damage(folder: Path, names: Sequence[str]) -> str | None:
    """What is wrong with these files of a checkpoint, or None."""
    if not folder.is_dir():
        return f"{folder.name} is not there"
    try:
        checksums = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))
        for name in names:
            if name not in checksums:
                return f"{folder.name} was saved without {name}"
            if digest_of(folder / name, "sha256") != checksums[name]:
                return f"{folder.name}/{name} is damaged"
    except OSError as error:
        return f"{folder.name}/{Path(error.filename or '').name}: {error.strerror}"
    except (ValueError, TypeError):
        return f"{folder.name}/{CHECKSUMS} is damaged"
    return None
