"""Checks of the arguments that residual and dense networks have in common."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

from paddle import Tensor

from resnet_fit.errors import require
from resnet_fit.networks.families.network import as_count


def as_counts(**values: object) -> Iterator[int]:
    """Each value as an int; UserError for one that is no whole number of at least 1."""
    for name, value in values.items():
        count = as_count(value) or 0
        require(count > 0, name, value, "a whole number above 0")
        yield count


def check_images(images: Tensor, channels: int) -> None:
    """Raise UserError for a batch that is not ``[N, channels, H, W]``."""
    shape = list(images.shape)
    require(len(shape) == 4 and shape[1] == channels, "images", shape, f"[N, {channels}, H, W]")


def check_image_size(stem: str, pixels: int) -> None:
    """Warn if a stem that divides images by 4 meets images of 64 ``pixels`` or less a side."""
    if stem == "imagenet" and pixels <= 64:
        warnings.warn(
            f"stem='imagenet' shrinks images of {pixels} px to {-(-pixels // 4)} px before the "
            "first block, which costs much accuracy: choose stem='cifar' for small images.",
            stacklevel=2,
        )
