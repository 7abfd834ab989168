"""Normalisation: pixel values become float32 of mean 0 and deviation 1 per channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from resnet_fit.config.registry import part
from resnet_fit.data.augment.operation import Array, Operation
from resnet_fit.errors import UserError, require


@part("augmentation", "normalize")
@dataclass(frozen=True)
class Normalize(Operation):
    """Turn pixel values 0 to 255 into float32 ``(x / 255 - mean) / std``, per channel.

    By default mean and deviation are those of the training set (`resnet_fit.data.statistics`).

    Args:
        mean: of each channel, or one for all, in units of 0..1.
        std: the standard deviation of each channel, or one for all, in units of 0..1.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    grey_levels: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require(
            (self.mean is None) == (self.std is None),
            "mean, std",
            (self.mean, self.std),
            "both or none",
        )
        if self.std is not None:
            require(
                bool(self.std) and all(s > 0 for s in self.std), "std", self.std, "values above 0"
            )
            require(bool(self.mean), "mean", self.mean, "a value for each channel, or one for all")

    def apply(self, images: Array, uniforms: Array, out: Array | None = None) -> Array:
        """See `Operation.apply`; ``out`` is an optional result array, float32 of the same shape."""
        scale, shift = self.scale_and_shift(images.shape[1])
        # Measured: three simple passes within the CPU cache beat two of which one also converts.
        values = np.empty(images.shape, np.float32) if out is None else out
        values[...] = images
        values *= scale
        values -= shift
        return values

    def scale_and_shift(self, channels: int) -> tuple[Array, Array]:
        """``x * scale - shift`` normalises pixel values; both are ``[channels or 1, 1, 1]``."""
        if self.mean is None or self.std is None:
            raise UserError(
                "normalize: mean and std are not set; give them, or the data set's statistics"
            )
        mean, std = (np.asarray(v, np.float64)[:, None, None] for v in (self.mean, self.std))
        for name, given in (("mean", mean), ("std", std)):
            if len(given) not in (1, channels):
                raise UserError(
                    f"normalize.{name}: {len(given)} values for images of {channels} channel(s)"
                )
        return (1 / (255 * std)).astype(np.float32), (mean / std).astype(np.float32)
