"""The one exception that means "you can mend this yourself", and the hint that goes with it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in a config, a file or an argument, told in one line.

    The command line prints the message without a traceback and exits with code 2.
    """


class RunFailed(RuntimeError):
    """A run that could not go on for a reason outside the user's input, told in one line.

    The command line prints the message without a traceback and exits with code 1.
    """


def suggest(name: object, valid: Iterable[object]) -> str:
    """Return `` Did you mean 'x'?`` for the valid name nearest to ``name``, or an empty string."""
    near = difflib.get_close_matches(str(name), [str(v) for v in valid], n=1, cutoff=0.6)
    return f" Did you mean '{near[0]}'?" if near else ""
