"""Decoded copies of images, many in one file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from resnet_fit.errors import RunFailed


class Copy(NamedTuple):
    """A decoded image: uint8 RGB, ``width * height * 3`` bytes at ``offset`` of ``file``."""

    file: str
    offset: int
    width: int
    height: int

    def read(self, top: int = 0, bottom: int | None = None) -> np.ndarray:
        """The pixels of the rows from ``top`` to ``bottom``, uint8 ``[bottom - top, W, 3]``.

        Read, not memory-mapped: it is as fast, the system caches the pages either way, and a disk
        failure raises an error instead of killing the process.

        Raises:
            RunFailed: the file is missing, or shorter than it was.
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

    ``places`` int64 ``[N, 3]`` has offset, width and height of each image; offset -1 means that the
    image has no copy.
    """

    file: str
    places: np.ndarray

    def __getitem__(self, index: int) -> Copy | None:
        offset, width, height = self.places[index].tolist()
        return None if offset < 0 else Copy(self.file, offset, width, height)

    def take(self, indices: np.ndarray) -> Copies:
        """The copies at ``indices``, in that order."""
        return Copies(self.file, self.places[indices])
