"""Checks of the arguments that residual and dense networks have in common."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

from paddle import Tensor

from resnet_fit.errors import UserError
from resnet_fit.networks.families.network import as_count


def as_counts(**values: object) -> Iterator[int]:
    """Each value as an int; UserError for one that is no whole number of at least 1."""
    for name, value in values.items():
        count = as_count(value)
        if count is None:
            raise UserError(f"{name}={value!r}: expected a whole number of at least 1.")
        yield count


def check_images(images: Tensor, channels: int) -> None:
    """Raise UserError for a batch that is not ``[N, channels, H, W]``."""
    shape = list(images.shape)
    if len(shape) != 4 or shape[1] != channels:
        raise UserError(f"images: received the shape {shape}, expected [N, {channels}, H, W]")


def check_image_size(stem: str, pixels: int) -> None:
    """Warn if a stem that divides images by 4 meets images of 64 ``pixels`` or less a side."""
    if stem == "imagenet" and pixels <= 64:
        warnings.warn(
            f"stem='imagenet' shrinks images of {pixels} px to {-(-pixels // 4)} px before the "
            "first block, which costs much accuracy: choose stem='cifar' for small images.",
            stacklevel=2,
        )
