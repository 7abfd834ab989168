"""Cutout and random erasing: a part of the image is set to 0."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from resnet_fit.config.registry import part
from resnet_fit.data.augment.operation import Array, Operation
from resnet_fit.errors import require


@part("augmentation", "cutout")
@dataclass(frozen=True)
class Cutout(Operation):
    """Set a square of ``size`` pixels around a random pixel to 0 (DeVries and Taylor 2017, 3).

    The square may reach beyond the edge. After `Normalize` 0 is the mean colour, as in the paper;
    before it, 0 is black.

    Args:
        size: pixels a side.
    """

    size: int
    draws: ClassVar[int] = 2

    def __post_init__(self) -> None:
        require(self.size > 0, "size", self.size, "1 or more pixels")

    def apply(self, images: Array, uniforms: Array) -> Array:
        return erased(images, self.boxes(uniforms, *images.shape[2:]))

    def boxes(self, uniforms: Array, height: int, width: int) -> Array:
        """The erased box of each image as (top, bottom, left, right), ``[N, 4]``."""
        top = (uniforms[:, 0] * height).astype(np.intp) - self.size // 2
        left = (uniforms[:, 1] * width).astype(np.intp) - self.size // 2
        return np.maximum(0, np.stack([top, top + self.size, left, left + self.size], axis=1))


@part("augmentation", "random_erasing")
@dataclass(frozen=True)
class RandomErasing(Operation):
    """Set a random rectangle to 0 with probability ``p`` (Zhong et al. 2017, algorithm 1).

    A rectangle that is longer than a side is cut to that side. The paper draws again instead, but
    here each image has a fixed number of random numbers. After `Normalize` 0 is the mean colour;
    before it, 0 is black.

    Args:
        p: the probability.
        scale: the rectangle's share of the area, uniform between these two.
        ratio: its height divided by its width, log-uniform between these two.
    """

    p: float = 0.25
    scale: tuple[float, float] = (0.02, 0.33)
    ratio: tuple[float, float] = (0.3, 3.3)
    draws: ClassVar[int] = 5

    def __post_init__(self) -> None:
        require(0 <= self.p <= 1, "p", self.p, "a probability, 0 to 1")
        require_scale_and_ratio(self.scale, self.ratio)

    @property
    def idle(self) -> bool:
        return self.p == 0

    def apply(self, images: Array, uniforms: Array) -> Array:
        return erased(images, self.boxes(uniforms, *images.shape[2:]))

    def boxes(self, uniforms: Array, height: int, width: int) -> Array:
        """The erased box of each image as (top, bottom, left, right), ``[N, 4]``."""
        area = height * width * _uniform(uniforms[:, 1], *self.scale)
        ratio = np.exp(_uniform(uniforms[:, 2], *(math.log(r) for r in self.ratio)))
        heights = np.clip(np.rint(np.sqrt(area * ratio)), 1, height).astype(np.intp)
        widths = np.clip(np.rint(np.sqrt(area / ratio)), 1, width).astype(np.intp)
        tops = (uniforms[:, 3] * (height - heights + 1)).astype(np.intp)
        lefts = (uniforms[:, 4] * (width - widths + 1)).astype(np.intp)
        boxes = np.stack([tops, tops + heights, lefts, lefts + widths], axis=1)
        boxes[uniforms[:, 0] >= self.p] = 0
        return boxes


def require_scale_and_ratio(scale: tuple[float, float], ratio: tuple[float, float]) -> None:
    """Raise UserError for ranges that a rectangle's area and ratio of sides cannot have."""
    shares = 0 < scale[0] <= scale[1] <= 1
    require(shares, "scale", scale, "two rising shares of the area, 0 to 1")
    require(0 < ratio[0] <= ratio[1] < math.inf, "ratio", ratio, "two rising ratios above 0")


def erased(images: Array, boxes: Array) -> Array:
    """Images with zeros in their boxes; boxes may be empty or reach beyond the lower edges."""
    result = images.copy()
    for image, (top, bottom, left, right) in zip(result, boxes.tolist(), strict=True):
        image[:, top:bottom, left:right] = 0
    return result


def _uniform(uniforms: Array, low: float, high: float) -> Array:
    return low + (high - low) * uniforms
