"""Checks of the arguments that residual and dense networks have in common."""

from __future__ import annotations

import warnings

from paddle import Tensor

from resnet_fit.errors import UserError
from resnet_fit.networks.families.network import is_count


def check_counts(**counts: object) -> None:
    """Raise UserError for a value that is no whole number of at least 1."""
    for name, value in counts.items():
        if not is_count(value):
            raise UserError(f"{name}={value!r}: expected a whole number of at least 1.")


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
