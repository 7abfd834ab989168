"""What an augmentation operation is."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

Array = np.ndarray


class Operation:
    """One entry of an augmentation list; subclasses are frozen dataclasses of its settings."""

    part_name: ClassVar[str] = ""
    draws: ClassVar[int] = 0
    # float32 copies of a piece and the temporaries of a colour operation stay in a core's
    # second-level cache. Measured: with pieces of 1,024 images half of the speed is lost.
    piece_values: ClassVar[int] = 32 * 3 * 32 * 32
    """How many values of a batch it is best given at a time."""
    grey_levels: ClassVar[bool] = False
    """Whether it understands grey levels only, and so comes before `Normalize`."""

    @property
    def alternates(self) -> bool:
        """Whether its one number is an image's phase instead, which moves on by a half an epoch."""
        return False

    @property
    def idle(self) -> bool:
        """Whether these settings leave every image as it is."""
        return False

    def apply(self, images: Array, uniforms: Array) -> Array:
        """Return changed images, the inputs untouched; ``uniforms`` is ``[N, draws]`` in [0, 1)."""
        raise NotImplementedError

    def __call__(self, images: Array, rng: np.random.Generator) -> Array:
        """Draw what ``images`` need from ``rng`` and apply the operation."""
        return self.apply(images, rng.random((len(images), self.draws)))


def rounded(values: Array) -> Array:
    """Grey levels 0..255, of whatever type, as uint8."""
    return values if values.dtype == np.uint8 else (values + 0.5).astype(np.uint8)
