"""The interface of augmentation operations."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

Array = np.ndarray


class Operation:
    """One entry of an augmentation list; subclasses are frozen dataclasses of its settings."""

    part_name: ClassVar[str] = ""
    draws: ClassVar[int] = 0
    # float32 copies of a piece and the temporaries of a colour operation fit into a core's L2
    # cache. Measured: pieces of 1,024 images run at half the speed.
    piece_values: ClassVar[int] = 32 * 3 * 32 * 32
    """Values of a batch to process at a time, for speed."""
    grey_levels: ClassVar[bool] = False
    """Whether it needs pixel values, and so must come before `Normalize`."""

    @property
    def alternates(self) -> bool:
        """Whether it takes the image's phase, which moves by 0.5 an epoch, as its random number."""
        return False

    @property
    def idle(self) -> bool:
        """Whether these settings change no image."""
        return False

    def apply(self, images: Array, uniforms: Array) -> Array:
        """Return changed copies of the images; ``uniforms`` is ``[N, draws]`` in [0, 1)."""
        raise NotImplementedError


def rounded(values: Array) -> Array:
    """Grey levels 0..255 of any dtype as uint8."""
    return values if values.dtype == np.uint8 else (values + 0.5).astype(np.uint8)
