"""Progressive resizing: small images in the first epochs, which cost less, full ones in the last.

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
    """From ``start`` pixels a side in the first epoch linearly to ``end`` at ``epochs``.

    Sizes lie ``step`` apart, counted back from ``end``, which is kept from then on.
    """

    def size(epoch: int) -> int:
        missing = (end - start) * max(0.0, 1 - epoch / epochs)
        return max(start, end - math.ceil(missing / step) * step)

    return size


def at_size(operations: Sequence[T], sizes: Sizes | None, epoch: int) -> list[T]:
    """The operations, such that they make images of the epoch's size.

    A `RandomResizedCrop` cuts to that size at once; other images are resampled before they are
    normalised.
    """
    if sizes is None:
        return list(operations)
    size = sizes(epoch)
    if any(isinstance(op, RandomResizedCrop) for op in operations):
        return [
            dataclasses.replace(op, size=size) if isinstance(op, RandomResizedCrop) else op
            for op in operations
        ]
    normalize = next(
        (i for i, op in enumerate(operations) if isinstance(op, augment.Normalize)), len(operations)
    )
    resize: list = [augment.Resize(size)]
    return [*operations[:normalize], *resize, *operations[normalize:]]
