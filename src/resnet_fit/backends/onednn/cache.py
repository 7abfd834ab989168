"""Compiled operations, kept as long as recent batches needed them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any, TypeVar

from resnet_fit.backends.threads import threads

Compiled = TypeVar("Compiled")


class Cache:
    """Compiles an operation when it is first needed, and keeps it while it may be needed again.

    A network computes on few kinds of batches: a training, with evaluations and smaller last
    batches, on four at a time. What none of the last ``kinds`` of batches needed is dropped, so
    that memory stays bounded where every image has a size of its own.

    Any number of Python threads may use it. Two of them may compile the same at the same time;
    both are right, and one is kept.
    """

    def __init__(self, kinds: int = 16) -> None:
        self._kinds = kinds
        self._batches, self._compiled = _Uses(), _Uses()
        self._time = 0
        self._kind: Hashable = None
        self._lock = Lock()

    def begin(self, *kind: Hashable) -> None:
        """A batch of some kind begins: of a network and a shape, say."""
        with self._lock:
            if kind == self._kind:  # used at the same time as the batch before
                return
            self._kind = kind
            self._time += 1
            self._batches.note(kind, None, self._time)
            if len(self._batches) > self._kinds:
                self._batches.popitem(last=False)
                self._compiled.drop_before(self._batches.first)

    def once(self, compile_: Callable[..., Compiled]) -> Callable[..., Compiled]:
        """A function or class as one that compiles only once for the same arguments.

        Another number of threads counts as other arguments, since oneDNN compiles for a number.
        """

        def find(*arguments: Hashable) -> Compiled:
            key = (compile_, threads(), arguments)
            made, time = self._compiled.get(key, (None, -1))
            if time == self._time:
                return made
            if made is None:
                made = compile_(*arguments)
            with self._lock:
                self._compiled.note(key, made, self._time)
            return made

        return find


class _Uses(OrderedDict[Hashable, tuple[Any, int]]):
    """Values and when they were used last, in this order."""

    def note(self, key: Hashable, value: Any, time: int) -> None:
        self[key] = value, time
        self.move_to_end(key)

    @property
    def first(self) -> int:
        """The oldest of the times."""
        return next(iter(self.values()))[1]

    def drop_before(self, time: int) -> None:
        while self and self.first < time:
            self.popitem(last=False)


# Of all networks in this process.
CACHE = Cache()
