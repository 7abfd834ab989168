"""Where images are: the names of millions of files in little memory, and decoded copies of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, overload

import numpy as np

from resnet_fit.errors import RunFailed


class Paths(Sequence[str]):
    """Paths below ``root``, in one block of bytes: about 50 bytes each, a third of what text takes.

    Args:
        root: what all paths begin with; may be empty.
        block: the rest of each path as the file system has it, one behind the other.
        bounds: int64 ``[N, 2]``, where each begins and ends in ``block``.
    """

    def __init__(self, root: str, block: bytes, bounds: np.ndarray) -> None:
        self.root, self.block, self.bounds = root, block, bounds

    @classmethod
    def of(cls, paths: Iterable[str]) -> Paths:
        """The same paths; they have no root in common unless they are `Paths` already."""
        if isinstance(paths, Paths):
            return paths
        names = [os.fsencode(path) for path in paths]
        return cls("", b"".join(names), bounds_of(np.array([len(n) for n in names], np.int64)))

    def __len__(self) -> int:
        return len(self.bounds)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> Paths: ...

    def __getitem__(self, index: int | slice) -> str | Paths:
        if isinstance(index, slice):
            return self.take(index)
        return os.path.join(self.root, os.fsdecode(self.below_root(index)))

    def below_root(self, index: int) -> bytes:
        """One path without its root, as the file system has it."""
        begin, end = self.bounds[index]
        return self.block[begin:end]

    def take(self, indices: np.ndarray | slice) -> Paths:
        """The paths at ``indices``, in that order; the block is shared."""
        return Paths(self.root, self.block, self.bounds[indices])


def bounds_of(lengths: np.ndarray) -> np.ndarray:
    """Where pieces of these lengths begin and end, one behind the other: int64 ``[N, 2]``."""
    ends = np.cumsum(lengths, dtype=np.int64)
    return np.stack([ends - lengths, ends], axis=1)


class Copy(NamedTuple):
    """A decoded image: uint8 RGB, ``width * height * 3`` bytes at ``offset`` of ``file``."""

    file: str
    offset: int
    width: int
    height: int

    def read(self, top: int = 0, bottom: int | None = None) -> np.ndarray:
        """The pixels of the rows from ``top`` to ``bottom``, uint8 ``[bottom - top, W, 3]``.

        They are read, not mapped: as fast, the system keeps them in memory all the same, and a disk
        that fails is an error instead of the end of the process.

        Raises:
            RunFailed: the file is gone, or shorter than it was.
        """
        row = self.width * 3
        count = ((self.height if bottom is None else bottom) - top) * row
        try:
            pixels = np.fromfile(self.file, np.uint8, count, offset=self.offset + top * row)
        except OSError as error:
            raise RunFailed(f"{self.file}: the image cache is lost ({error.strerror})") from None
        if len(pixels) < count:
            raise RunFailed(f"{self.file}: the image cache was cut short while it was in use")
        return pixels.reshape(-1, self.width, 3)


@dataclass(frozen=True, eq=False)
class Copies:
    """Decoded copies of a data set's images in one ``file``.

    ``places`` int64 ``[N, 3]`` are offset, width and height of each; the offset is -1 where there
    is none.
    """

    file: str
    places: np.ndarray

    def __getitem__(self, index: int) -> Copy | None:
        offset, width, height = self.places[index].tolist()
        return None if offset < 0 else Copy(self.file, offset, width, height)

    def take(self, indices: np.ndarray) -> Copies:
        """The copies at ``indices``, in that order."""
        return Copies(self.file, self.places[indices])
