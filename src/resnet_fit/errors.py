"""The one exception that means "you can mend this yourself", and the checks that raise it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class UserError(ValueError):
    """A mistake in a config, a file or an argument, told in one line.

    The command line prints the message without a traceback and exits with code 2.
    """


class RunFailed(RuntimeError):
    """A run that could not go on for a reason outside the user's input, told in one line.

    The command line prints the message without a traceback and exits with code 1.
    """


class Diverged(RunFailed):
    """A training whose numbers became NaN, infinite or absurdly large."""


class Interrupted(Exception):
    """A run that was asked to stop and has saved a checkpoint; ``folder`` is the run's."""

    def __init__(self, signal_number: int, folder: Path) -> None:
        super().__init__(f"stopped and saved; go on with: resnet-fit --resume {folder}")
        self.exit_code = 128 + signal_number


def out_of_memory(error: BaseException) -> bool:
    """Paddle has no type of its own for it; its message names the kind of error."""
    text = str(error).lower()
    signs = ("resourceexhausted", "out of memory", "cannot allocate", "bad_alloc")
    return isinstance(error, MemoryError) or any(sign in text for sign in signs)


def suggest(name: object, valid: Iterable[object]) -> str:
    """Return `` Did you mean 'x'?`` for the valid name nearest to ``name``, or an empty string."""
    near = difflib.get_close_matches(str(name), [str(v) for v in valid], n=1, cutoff=0.6)
    return f" Did you mean '{near[0]}'?" if near else ""


def require(right: bool, key: str, received: object, expected: str) -> None:
    """Raise a UserError for a value that is not right."""
    if not right:
        raise UserError(f"{key}: received {received!r}, expected {expected}")


def check_choice(name: str, value: object, valid: Iterable[str]) -> None:
    """Raise UserError for a ``value`` that is none of ``valid``."""
    valid = list(valid)
    if value not in valid:
        raise UserError(f"{name}={value!r}: choose {listed(valid)}.{suggest(value, valid)}")


def listed(values: Iterable[object]) -> str:
    """``a, b or c``."""
    *first, last = (str(value) for value in values)
    return f"{', '.join(first)} or {last}" if first else last
