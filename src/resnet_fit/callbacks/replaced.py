"""Temporarily calls a function before a method of one object."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Replaced:
    """Calls ``before`` with each call of a method, until it is put back.

    Args:
        owner: the object; others of its class are left alone.
        name: of its method.
        before: gets the method's arguments.
    """

    def __init__(self, owner: Any, name: str, before: Callable[..., object]) -> None:
        self._owner, self._name = owner, name
        self._own = vars(owner).get(name)  # somebody else's, or None for the class's
        self._is_on = True
        method = getattr(owner, name)

        def replacement(*arguments: Any, **options: Any) -> Any:
            if self._is_on:
                before(*arguments, **options)
            return method(*arguments, **options)

        self._replacement = replacement
        setattr(owner, name, replacement)

    def put_back(self) -> None:
        self._is_on = False
        if vars(self._owner).get(self._name) is not self._replacement:
            return  # somebody has replaced it in turn, and calls this one
        if self._own is None:
            delattr(self._owner, self._name)
        else:
            setattr(self._owner, self._name, self._own)
