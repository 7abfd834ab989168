"""Augmentation policies: each image gets random operations from a fixed set.

Operations give Pillow's results; their strength at each magnitude is that of the papers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from resnet_fit.config.registry import part
from resnet_fit.data.augment.colour import adjust_brightness, adjust_contrast, adjust_saturation
from resnet_fit.data.augment.operation import Array, Operation, rounded
from resnet_fit.errors import require

# Magnitudes go from 0 to this in both papers' code.
STEPS = 30
# A batch is spread over 14 operations: larger pieces than usual give each of them enough images.
PIECE_VALUES = 128 * 3 * 32 * 32


@part("augmentation", "rand_augment")
@dataclass(frozen=True)
class RandAugment(Operation):
    """Random operations out of 14, drawn for each image (Cubuk et al. 2019, "RandAugment").

    Args:
        operations: how many are applied, one after another.
        magnitude: strength of all operations, 0 to 30.
    """

    operations: int = 2
    magnitude: int = 9
    grey_levels: ClassVar[bool] = True
    piece_values: ClassVar[int] = PIECE_VALUES

    def __post_init__(self) -> None:
        require(self.operations > 0, "operations", self.operations, "1 or more")
        require(0 <= self.magnitude <= STEPS, "magnitude", self.magnitude, f"0 to {STEPS}")

    @property
    def draws(self) -> int:  # type: ignore[override]
        return 2 * self.operations

    def apply(self, images: Array, uniforms: Array) -> Array:
        strengths = np.full(len(images), self.magnitude / STEPS)
        # The largest shifts are relative to the sides: the paper tuned them at 331 pixels.
        down, across = (side * 150 / 331 for side in images.shape[2:])
        full = _FullStrength(shear=0.3, shift=(across, down), turn=30, colour=0.9, bits=4)
        for which, signs in uniforms.reshape(len(images), -1, 2).transpose(1, 2, 0):
            images = _apply(full, images, which, strengths, signs)
        return images


@part("augmentation", "trivial_augment")
@dataclass(frozen=True)
class TrivialAugment(Operation):
    """One random operation of random magnitude for each image (Mueller and Hutter 2021).

    "TrivialAugment" in its wide version; it has no settings.
    """

    draws: ClassVar[int] = 3
    grey_levels: ClassVar[bool] = True
    piece_values: ClassVar[int] = PIECE_VALUES

    def apply(self, images: Array, uniforms: Array) -> Array:
        strengths = np.floor(uniforms[:, 1] * (STEPS + 1)) / STEPS
        full = _FullStrength(shear=0.99, shift=(32, 32), turn=135, colour=0.99, bits=6)
        return _apply(full, images, uniforms[:, 0], strengths, uniforms[:, 2])


@dataclass(frozen=True)
class _FullStrength:
    """Sizes of the changes at full strength; shift in pixels (x, y), turn in degrees."""

    shear: float
    shift: tuple[float, float]
    turn: float
    colour: float
    bits: int


# The papers' 14 operations: identity, 5 affine ones, and 8 on pixel values. These take uint8
# images, and for each image a strength of 0..1 and a sign of -1 or 1.
_AFFINE = 5
_CHANGES: list[Callable[[Array, Array, Array, _FullStrength], Array]] = [
    lambda x, m, s, full: adjust_brightness(x, 1 + s * m * full.colour),
    lambda x, m, s, full: adjust_saturation(x, 1 + s * m * full.colour) if x.shape[1] == 3 else x,
    lambda x, m, s, full: adjust_contrast(x, 1 + s * m * full.colour),
    lambda x, m, s, full: adjust_sharpness(x, 1 + s * m * full.colour),
    lambda x, m, s, full: posterize(x, 8 - np.rint(m * full.bits).astype(int)),
    lambda x, m, s, full: solarize(x, 255 * (1 - m)),
    lambda x, m, s, full: autocontrast(x),
    lambda x, m, s, full: equalize(x),
]


def _apply(
    full: _FullStrength, images: Array, which: Array, strengths: Array, signs: Array
) -> Array:
    """Apply to each image the operation that its uniform number ``which`` selects."""
    result = rounded(images)
    result = result.copy() if result is images else result
    chosen = (which * (1 + _AFFINE + len(_CHANGES))).astype(np.intp)
    signs = np.where(signs < 0.5, -1, 1)

    rows = np.flatnonzero((chosen >= 1) & (chosen <= _AFFINE))
    if len(rows):
        # One call for all five: a row has its strength in one column and 0 in the others.
        amounts = np.eye(_AFFINE)[chosen[rows] - 1] * (signs * strengths)[rows, None]
        shear_x, shear_y, shift_x, shift_y, turn = amounts.T
        result[rows] = affine(
            result[rows],
            shear_x * full.shear,
            shear_y * full.shear,
            np.trunc(shift_x * full.shift[0]),
            np.trunc(shift_y * full.shift[1]),
            turn * full.turn,
        )
    for number, change in enumerate(_CHANGES, start=1 + _AFFINE):
        rows = np.flatnonzero(chosen == number)
        if len(rows):
            result[rows] = rounded(change(result[rows], strengths[rows], signs[rows], full))
    return result


def affine(
    images: Array,
    shear_x: Array | float = 0.0,
    shear_y: Array | float = 0.0,
    shift_x: Array | float = 0.0,
    shift_y: Array | float = 0.0,
    turn: Array | float = 0.0,
) -> Array:
    """Transform images by an affine map, with nearest-neighbour sampling and black outside.

    Coordinates are those of pixel centres. Shears are relative to the other coordinate, measured
    from the upper left corner; shifts are in pixels; ``turn`` is in degrees counter-clockwise
    around the centre.
    """
    n, channels, h, w = images.shape
    column, row = np.arange(w) + 0.5, (np.arange(h) + 0.5)[:, None]
    shear_x, shear_y, shift_x, shift_y = (
        np.reshape(value, (-1, 1, 1)) for value in (shear_x, shear_y, shift_x, shift_y)
    )
    angle = np.reshape(np.deg2rad(turn), (-1, 1, 1))
    across, down = column - w / 2, row - h / 2
    x = np.cos(angle) * across - np.sin(angle) * down + w / 2 + shear_x * row + shift_x
    y = np.sin(angle) * across + np.cos(angle) * down + h / 2 + shear_y * column + shift_y
    x, y = np.broadcast_arrays(np.floor(x).astype(np.intp), np.floor(y).astype(np.intp))
    inside = (x >= 0) & (x < w) & (y >= 0) & (y < h)
    source = np.where(inside, y * w + x, 0).reshape(-1, 1, h * w)
    moved = np.take_along_axis(images.reshape(n, channels, h * w), source, axis=2)
    return moved.reshape(images.shape) * inside[:, None]


def adjust_sharpness(images: Array, factors: Array) -> Array:
    """Blend image i with its smoothed version: 0 gives that, 1 the image, 2 sharpens it.

    The smoothed version is a 3x3 mean in which the centre has weight 5 of 13; edge pixels stay.
    """
    values = images.astype(np.float32)
    smooth = values.copy()
    h, w = images.shape[2:]
    total = 4 * values[..., 1:-1, 1:-1]
    for y in range(3):
        for x in range(3):
            total = total + values[..., y : y + h - 2, x : x + w - 2]
    smooth[..., 1:-1, 1:-1] = np.floor(total / 13 + 0.5)
    factors = np.asarray(factors, np.float32)[:, None, None, None]
    return np.clip(smooth + factors * (values - smooth), 0, 255)


def posterize(images: Array, bits: Array) -> Array:
    """Keep the highest ``bits`` bits of each value."""
    masks = (0xFF << (8 - bits) & 0xFF).astype(np.uint8)
    return images & masks[:, None, None, None]


def solarize(images: Array, thresholds: Array) -> Array:
    """Invert pixel values at or above the threshold."""
    return np.where(images >= thresholds[:, None, None, None], 255 - images, images)


def autocontrast(images: Array) -> Array:
    """Stretch each channel to 0..255."""
    low, high = (f(images, axis=(2, 3), keepdims=True).astype(float) for f in (np.min, np.max))
    scale = np.divide(255, high - low, out=np.ones_like(high), where=high > low)
    offset = np.where(high > low, -low * scale, 0)
    return np.clip(images * scale + offset, 0, 255).astype(np.uint8)


def equalize(images: Array) -> Array:
    """Equalise the histogram of each channel, as Pillow does it."""
    result = images.copy()
    for channel in result.reshape(-1, images.shape[2] * images.shape[3]):
        counts = np.bincount(channel, minlength=256)
        # Pillow leaves out the brightest level that occurs.
        step = (len(channel) - counts[channel.max()]) // 255
        if step:
            below = np.cumsum(counts) - counts
            channel[:] = np.minimum((step // 2 + below) // step, 255).astype(np.uint8)[channel]
    return result
