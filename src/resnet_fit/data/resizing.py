"""Progressive resizing: small images in the first epochs, which cost less time, then full size.

Howard 2018, "Training Imagenet in 3 hours for $25"; Tan and Le 2021, "EfficientNetV2", section 4.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TypeVar

from resnet_fit.data import augment
from resnet_fit.data.transforms import RandomResizedCrop

# Pixels a side by epoch, from 0.
Sizes = Callable[[int], int]
T = TypeVar("T")


def progressive(start: int, end: int, epochs: float, step: int = 4) -> Sizes:
    """Grow linearly from ``start`` pixels a side in the first epoch to ``end`` at ``epochs``.

    The size grows in steps of ``step`` pixels, counted back from ``end``, and stays at ``end``.
    """

    def size(epoch: int) -> int:
        missing = (end - start) * max(0.0, 1 - epoch / epochs)
        return max(start, end - math.ceil(missing / step) * step)

    return size


def at_size(operations: Sequence[T], sizes: Sizes | None, epoch: int) -> list[T]:
    """The operations, changed so that they give images of the epoch's size.

    A `RandomResizedCrop` gets this size; without one, a `Resize` is added before `Normalize`.
    """
    if sizes is None:
        return list(operations)
    size = sizes(epoch)
    if any(isinstance(op, RandomResizedCrop) for op in operations):
        return [
            dataclasses.replace(op, size=size) if isinstance(op, RandomResizedCrop) else op
            for op in operations
        ]
    normalize = augment.first_normalize(operations)
    resize: list = [augment.Resize(size)]
    return [*operations[:normalize], *resize, *operations[normalize:]]
