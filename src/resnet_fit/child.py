"""Python processes that find the same modules as this one."""

from __future__ import annotations

import sys


def code_for_child(code: str) -> str:
    """``code`` for ``python -c``, to run with the module path of this process.

    By itself ``python -c`` or ``-m`` looks into the working directory first, where a file named
    like a module of the standard library would be executed instead of it.
    """
    path = [place for place in sys.path if isinstance(place, str)]
    return f"import sys; sys.path[:] = {path!a}; {code}"
