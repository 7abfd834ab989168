"""The one exception that means "you can mend this yourself", and the checks that raise it."""

from __future__ import annotations

import difflib
import shlex
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


class LostProcess(RunFailed):
    """Another process that trained with this one has ended; see `resnet_fit.parallel`.

    It has an exit code of its own, since it never is the cause that people look for.
    """

    exit_code = 4


class Interrupted(Exception):
    """A run that was asked to stop and has saved a checkpoint; ``folder`` is the run's."""

    def __init__(self, signal_number: int, folder: Path) -> None:
        super().__init__(f"stopped and saved; go on with: {command('--resume', folder)}")
        self.exit_code = 128 + signal_number


def told(error: BaseException) -> str | None:
    """What to tell people of an error in one line; None for one that nobody foresaw."""
    if isinstance(error, OSError):  # a full disk, a folder taken away
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror or error}"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return str(error) if isinstance(error, (UserError, RunFailed, Interrupted)) else None


def command(*arguments: object) -> str:
    """A command of this program for people to copy into a shell.

    A path that starts with a dash would be an option.
    """
    paths = (f"./{a}" if isinstance(a, Path) and str(a).startswith("-") else a for a in arguments)
    return shlex.join(["resnet-fit", *map(str, paths)])


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
