"""Child Python processes with the module path of this one."""

from __future__ import annotations

import sys


def code_for_child(code: str) -> str:
    """``code`` for ``python -c``, changed to use the module path of this process.

    Otherwise ``python -c`` and ``-m`` search the working directory first, and a file there with the
    name of a standard module would be imported instead of it.
    """
    path = [place for place in sys.path if isinstance(place, str)]
    return f"import sys; sys.path[:] = {path!a}; {code}"
