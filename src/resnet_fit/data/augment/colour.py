"""Colour jitter: brightness, contrast, saturation, hue."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np

from resnet_fit.config.registry import part
from resnet_fit.data.augment.operation import Array, Operation
from resnet_fit.errors import UserError, require

# ITU-R 601 luma, the weights of Pillow's conversion to grey.
LUMA = np.array([19595, 38470, 7471], np.float32) / np.float32(65536)


@part("augmentation", "color_jitter")
@dataclass(frozen=True)
class ColorJitter(Operation):
    """Change brightness, contrast, saturation and hue by random factors, drawn for each image.

    A factor is uniform in [max(0, 1 - value), 1 + value]. Changes whose value is not 0 are applied
    in a random order, drawn for each image.

    Args:
        brightness: the factor differs from 1 by at most this.
        contrast: the factor differs from 1 by at most this.
        saturation: the factor differs from 1 by at most this.
        hue: the largest shift in both directions; 1 is the full colour circle.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    draws: ClassVar[int] = 5
    grey_levels: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            require(0 <= getattr(self, name) < math.inf, name, getattr(self, name), "0 or more")
        require(0 <= self.hue <= 0.5, "hue", self.hue, "0 to 0.5")

    @property
    def idle(self) -> bool:
        return not (self.brightness or self.contrast or self.saturation or self.hue)

    def apply(self, images: Array, uniforms: Array) -> Array:
        factors, turns = self.choices(uniforms)
        if len(factors) < 2:
            for name in factors:
                images = ADJUST[name](images, factors[name])
            return images
        images = images.astype(np.float32)
        for turn in turns:
            for k, name in enumerate(factors):
                now = np.flatnonzero(turn == k)
                if len(now):
                    images[now] = ADJUST[name](images[now], factors[name][now])
        return images

    def choices(self, uniforms: Array) -> tuple[dict[str, Array], Array]:
        """The factors ``[N]`` of each change, and the order of the changes for each image.

        The order is ``[changes, N]``: entry ``[t, i]`` is the index of image i's change number t.
        """
        ranges = {
            "brightness": (max(0.0, 1 - self.brightness), 1 + self.brightness),
            "contrast": (max(0.0, 1 - self.contrast), 1 + self.contrast),
            "saturation": (max(0.0, 1 - self.saturation), 1 + self.saturation),
            "hue": (-self.hue, self.hue),
        }
        factors = {
            name: _between(low, high, uniforms[:, column])
            for column, (name, (low, high)) in enumerate(ranges.items())
            if low < high
        }
        orders = _orders(len(factors))
        return factors, orders[(uniforms[:, 4] * len(orders)).astype(np.intp)].T


def adjust_brightness(images: Array, factors: Array) -> Array:
    """Blend image i with black: 0 gives black, 1 the image, 2 doubles its pixel values."""
    values = images.astype(np.float32)
    values *= _column(factors)
    return np.clip(values, 0, 255, out=values)


def adjust_contrast(images: Array, factors: Array) -> Array:
    """Blend image i with its mean grey, rounded to a whole value as Pillow does."""
    values = images.astype(np.float32)
    means = values.mean((2, 3))
    grey = np.floor(means @ LUMA + 0.5) if images.shape[1] == 3 else np.floor(means.mean(1) + 0.5)
    return _blended(values, grey[:, None, None, None], factors)


def adjust_saturation(images: Array, factors: Array) -> Array:
    """Blend image i with its grey version: 0 gives grey, 1 the image."""
    require_colour(images, "saturation")
    values = images.astype(np.float32)
    return _blended(values, _grey(values)[:, None], factors)


def _blended(values: Array, grey: Array, factors: Array) -> Array:
    """Return grey + factor * (values - grey) within 0..255; writes into ``values``."""
    factors = _column(factors)
    values *= factors
    values += grey * (1 - factors)
    return np.clip(values, 0, 255, out=values)


def _grey(values: Array) -> Array:
    red, green, blue = (values[:, c] * LUMA[c] for c in range(3))
    red += green
    red += blue
    return red


def adjust_hue(images: Array, shifts: Array) -> Array:
    """Shift the hue of image i by ``shifts[i]`` of a circle, -0.5 to 0.5; S and V of HSV stay.

    This is the hexagonal hue of HSV without its division. With M and m a pixel's largest and
    smallest channel and C = M - m, every angle is kept multiplied by C, in sixths of a turn: C
    times the distance of the hue from red is |g - b| + (M - r) + 2 (min(g, b) - m), its side the
    sign of g - b, and a channel at distance D from its own primary has the value
    m + C * clip(2 - D, 0, 1).
    """
    require_colour(images, "hue")
    values = images.astype(np.float32)
    red, green, blue = values[:, 0], values[:, 1], values[:, 2]
    high, low = np.maximum(green, blue), np.minimum(green, blue)
    side = green - blue
    largest, smallest = np.maximum(high, red), np.minimum(low, red)
    chroma = largest - smallest

    angle = high
    angle -= low
    angle += largest
    angle -= red
    low -= smallest
    low *= 2
    angle += low
    np.copysign(angle, side, out=angle)
    angle += chroma * _column(6 * shifts)[:, 0]

    half_turn, third = 3 * chroma, 2 * chroma
    reach = smallest + third
    distance = side
    for channel, primary in ((values[:, 0], None), (values[:, 1], third), (values[:, 2], -third)):
        # Distances are at most 9 C. Folded twice at 3 C they become distances from the opposite.
        np.abs(
            angle if primary is None else np.subtract(angle, primary, out=distance), out=distance
        )
        for _ in range(2):
            distance -= half_turn
            np.abs(distance, out=distance)
        np.subtract(reach, distance, out=distance)
        np.clip(distance, smallest, largest, out=channel)
    return values


ADJUST: dict[str, Callable[[Array, Array], Array]] = {
    "brightness": adjust_brightness,
    "contrast": adjust_contrast,
    "saturation": adjust_saturation,
    "hue": adjust_hue,
}


@cache
def _orders(changes: int) -> Array:
    """All permutations of ``changes`` indices, ``[permutations, changes]``."""
    return np.array(list(itertools.permutations(range(changes))), np.intp)


def _between(low: float, high: float, uniforms: Array) -> Array:
    return (low + (high - low) * uniforms).astype(np.float32)


def _column(factors: Array) -> Array:
    return np.asarray(factors, np.float32)[:, None, None, None]


def require_colour(images: Any, name: str) -> None:
    """Raise UserError for images ``[N, C, H, W]`` that do not have 3 channels."""
    if images.shape[1] != 3:
        raise UserError(
            f"color_jitter.{name}: images have {images.shape[1]} channel(s), {name} needs 3"
        )
