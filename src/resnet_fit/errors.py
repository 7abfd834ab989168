"""Exceptions with one-line messages for users, and the checks that raise them."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterable
from pathlib import Path


class UserError(ValueError):
    """A user's mistake in a config, a file or an argument; the message is one line.

    The command line prints the message without a traceback and exits with code 2.
    """


class RunFailed(RuntimeError):
    """A run that failed for a reason other than the user's input; the message is one line.

    The command line prints the message without a traceback and exits with code 1.
    """


class Diverged(RunFailed):
    """A training whose loss or weights became NaN, infinite or absurdly large."""


class LostProcess(RunFailed):
    """Another process of this run has ended; see `resnet_fit.parallel`.

    It has its own exit code, because the cause is always in the other process.
    """

    exit_code = 4


class Interrupted(Exception):
    """A run that was stopped by a signal and has saved a checkpoint; ``folder`` is the run's."""

    def __init__(self, signal_number: int, folder: Path) -> None:
        super().__init__(f"stopped and saved; go on with: {command('--resume', folder)}")
        self.exit_code = 128 + signal_number


def told(error: BaseException) -> str | None:
    """The one-line message for an expected error; None for an unexpected one, which is a bug."""
    if isinstance(error, OSError):  # a full disk, a deleted folder
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror or error}"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return str(error) if isinstance(error, (UserError, RunFailed, Interrupted)) else None


def first_line(error: BaseException) -> str:
    """The kind of an error and the first line of its message, which may have none."""
    lines = str(error).strip().splitlines()
    return ": ".join([type(error).__name__, *lines[:1]])


def command(*arguments: object) -> str:
    """A command of this program, quoted for a shell.

    A path that starts with a dash gets ``./`` before it, so that it is not taken for an option.
    """
    paths = (f"./{a}" if isinstance(a, Path) and str(a).startswith("-") else a for a in arguments)
    return shlex.join(["resnet-fit", *map(str, paths)])


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out. Paddle has no exception type for it, so its message is searched."""
    text = str(error).lower()
    signs = ("resourceexhausted", "out of memory", "cannot allocate", "bad_alloc")
    return isinstance(error, MemoryError) or any(sign in text for sign in signs)


def suggest(name: object, valid: Iterable[object]) -> str:
    """Return `` Did you mean 'x'?`` with the valid name nearest to ``name``, or an empty string."""
    near = difflib.get_close_matches(str(name), [str(v) for v in valid], n=1, cutoff=0.6)
    return f" Did you mean '{near[0]}'?" if near else ""


def require(right: bool, key: str, received: object, expected: str) -> None:
    """Raise UserError unless ``right``."""
    if not right:
        raise UserError(f"{key}: received {received!r}, expected {expected}")


def check_choice(name: str, value: object, valid: Iterable[str]) -> None:
    """Raise UserError for a ``value`` that is not one of ``valid``."""
    valid = list(valid)
    if value not in valid:
        raise UserError(f"{name}={value!r}: choose {listed(valid)}.{suggest(value, valid)}")


def listed(values: Iterable[object]) -> str:
    """``a, b or c``."""
    *first, last = (str(value) for value in values)
    return f"{', '.join(first)} or {last}" if first else last


def few(values: Iterable[object], most: int = 3) -> str:
    """``a, b, c and 4 more``."""
    names = [str(value) for value in values]
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
