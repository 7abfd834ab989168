"""The one exception that means "you can mend this yourself", and the hint that goes with it."""

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


class Interrupted(Exception):
    """A run that was asked to stop and has saved a checkpoint; ``folder`` is the run's."""

    def __init__(self, signal_number: int, folder: Path) -> None:
        super().__init__(f"stopped and saved; go on with: resnet-fit --resume {folder}")
        self.exit_code = 128 + signal_number


def suggest(name: object, valid: Iterable[object]) -> str:
    """Return `` Did you mean 'x'?`` for the valid name nearest to ``name``, or an empty string."""
    near = difflib.get_close_matches(str(name), [str(v) for v in valid], n=1, cutoff=0.6)
    return f" Did you mean '{near[0]}'?" if near else ""
