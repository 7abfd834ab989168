"""Augmentation of whole batches held in memory, as array code.

Images are ``[N, C, H, W]`` arrays, uint8 or float32, in grey levels 0..255 until `Normalize`.
Spatial operations keep the type they are given. Colour operations return float32 and do not round,
so that a chain of them loses nothing between its links; they agree with the per-image reference
(Pillow's ``ImageEnhance``, the ``ColorJitter`` of paddle.vision and torchvision) up to that
rounding.

An operation says how many uniform random numbers an image costs (`Operation.draws`) and turns them
into its choices in `Operation.apply`, a pure function. What happens to an image therefore depends
on its own row of numbers alone, neither on its neighbours nor on how a batch is cut up for the
cache.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

import numpy as np

from resnet_fit.errors import UserError

Array = np.ndarray
Batch = Callable[[Array, np.random.Generator], Array]

# ITU-R 601 luma, the weights of Pillow's conversion to grey.
LUMA = np.array([19595, 38470, 7471], np.float32) / 65536

# Values worked on at a time: float32 copies of them and the temporaries of a colour operation stay
# in a core's second-level cache. Measured: with pieces of 1,024 images half of the speed is lost.
CHUNK_VALUES = 32 * 3 * 32 * 32


class Operation:
    """One entry of an augmentation list; subclasses are frozen dataclasses of its settings."""

    draws: ClassVar[int] = 0

    def apply(self, images: Array, uniforms: Array) -> Array:
        """Return changed images, the inputs untouched; ``uniforms`` is ``[N, draws]`` in [0, 1)."""
        raise NotImplementedError

    def __call__(self, images: Array, rng: np.random.Generator) -> Array:
        """Draw what ``images`` need from ``rng`` and apply the operation."""
        return self.apply(images, rng.random((len(images), self.draws)))


def compose(operations: Sequence[Operation]) -> Batch:
    """Chain operations, in their order, into one function of a batch and a generator.

    The result is what calling them one after another gives, made a cache-sized piece at a time; the
    returned array is fresh at each call. Raises UserError for an order that cannot be meant.
    """
    operations = tuple(operations)
    check_order(operations)
    draws = [op.draws for op in operations]
    columns = [
        slice(end - n, end) for n, end in zip(draws, itertools.accumulate(draws), strict=True)
    ]

    def run(images: Array, rng: np.random.Generator) -> Array:
        uniforms = rng.random((len(images), sum(draws)))
        step = max(1, CHUNK_VALUES // max(1, math.prod(images.shape[1:])))
        result: Array | None = None
        for start in range(0, len(images), step):
            part = slice(start, start + step)
            piece = images[part]
            for op, column in zip(operations, columns, strict=True):
                piece = op.apply(piece, uniforms[part, column])
            if result is None:
                result = np.empty((len(images), *piece.shape[1:]), piece.dtype)
            result[part] = piece
        return images.copy() if result is None else result

    return run


def check_order(operations: Sequence[Operation]) -> None:
    """Raise UserError for operations that cannot be meant in this order."""
    normalized = False
    for op in operations:
        if normalized and isinstance(op, (Normalize, ColorJitter)):
            name = next(n for n, cls in OPERATIONS.items() if isinstance(op, cls))
            raise UserError(
                f"augmentation: {name} comes after normalize; it works on grey levels, put it "
                "before"
            )
        normalized = normalized or isinstance(op, Normalize)


# --- where things are -----------------------------------------------------------------


@dataclass(frozen=True)
class RandomCrop(Operation):
    """Pad every side by ``padding`` pixels, then cut a window at a random place.

    The window is ``size`` pixels square, or as large as the image came in. ``mode`` says what the
    padding holds: ``zero`` (He et al. 2015, section 4.2) or the ``reflect``-ed image, edge not
    repeated.
    """

    padding: int = 4
    mode: Literal["zero", "reflect"] = "zero"
    size: int | None = None
    draws: ClassVar[int] = 2

    def __post_init__(self) -> None:
        _require(self.padding >= 0, "padding", self.padding, "0 or more pixels")
        _require(self.mode in ("zero", "reflect"), "mode", self.mode, "zero or reflect")
        _require(self.size is None or self.size > 0, "size", self.size, "1 or more pixels")

    def apply(self, images: Array, uniforms: Array) -> Array:
        padded = pad(images, self.padding, self.mode)
        h, w = (self.size, self.size) if self.size else images.shape[2:]
        rows, columns = padded.shape[2] - h + 1, padded.shape[3] - w + 1
        if rows < 1 or columns < 1:
            raise UserError(
                f"random_crop.size: {h} does not fit into images of {images.shape[3]}x"
                f"{images.shape[2]} with a padding of {self.padding}"
            )
        top = (uniforms[:, 0] * rows).astype(np.intp)
        left = (uniforms[:, 1] * columns).astype(np.intp)
        return crop(padded, top, left, h, w)


def pad(images: Array, width: int, mode: str) -> Array:
    """Surround images by ``width`` pixels of zeros or of their own reflection."""
    if width == 0:
        return images
    n, c, h, w = images.shape
    if mode == "reflect":
        if width >= min(h, w):
            raise UserError(
                f"random_crop.padding: {width} cannot be reflected from an image of {h}x{w}"
            )
        padded = np.empty((n, c, h + 2 * width, w + 2 * width), images.dtype)
        inner = padded[:, :, width : width + h]
        inner[..., width : width + w] = images
        inner[..., :width] = images[..., width:0:-1]
        inner[..., width + w :] = images[..., -2 : -width - 2 : -1]
        padded[:, :, :width] = inner[:, :, width:0:-1]
        padded[:, :, width + h :] = inner[:, :, -2 : -width - 2 : -1]
        return padded
    padded = np.zeros((n, c, h + 2 * width, w + 2 * width), images.dtype)
    padded[:, :, width : width + h, width : width + w] = images
    return padded


def crop(images: Array, top: Array, left: Array, height: int, width: int) -> Array:
    """Cut from image i the window whose upper left corner is at (``top[i]``, ``left[i]``)."""
    windows = np.lib.stride_tricks.sliding_window_view(images, (height, width), axis=(2, 3))
    return windows[np.arange(len(images)), :, top, left]


@dataclass(frozen=True)
class _Flip(Operation):
    """Mirror images along ``axis`` with probability ``p``."""

    p: float = 0.5
    draws: ClassVar[int] = 1
    axis: ClassVar[int]

    def __post_init__(self) -> None:
        _require(0 <= self.p <= 1, "p", self.p, "a probability, 0 to 1")

    def apply(self, images: Array, uniforms: Array) -> Array:
        chosen = uniforms[:, 0] < self.p
        flipped = images.copy()
        flipped[chosen] = np.flip(images[chosen], self.axis)
        return flipped


class HorizontalFlip(_Flip):
    """Mirror left and right with probability ``p``."""

    axis = 3


class VerticalFlip(_Flip):
    """Mirror top and bottom with probability ``p``."""

    axis = 2


@dataclass(frozen=True)
class Cutout(Operation):
    """Set a square of ``size`` pixels around a random pixel to 0 (DeVries and Taylor 2017, 3).

    The square may hang over the edge. After `Normalize` 0 is the mean colour, as in the paper;
    before it, black.
    """

    size: int
    draws: ClassVar[int] = 2

    def __post_init__(self) -> None:
        _require(self.size > 0, "size", self.size, "1 or more pixels")

    def apply(self, images: Array, uniforms: Array) -> Array:
        h, w = images.shape[2:]
        top = (uniforms[:, 0] * h).astype(np.intp) - self.size // 2
        left = (uniforms[:, 1] * w).astype(np.intp) - self.size // 2
        cut = images.copy()
        for image, y, x in zip(cut, top.tolist(), left.tolist(), strict=True):
            image[:, max(0, y) : y + self.size, max(0, x) : x + self.size] = 0
        return cut


@dataclass(frozen=True)
class Resize(Operation):
    """Resample to ``size`` pixels square; area-weighted when shrinking, as Pillow does it."""

    size: int
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"

    def __post_init__(self) -> None:
        _require(self.size > 0, "size", self.size, "1 or more pixels")
        _require(
            self.interpolation in KERNELS, "interpolation", self.interpolation, ", ".join(KERNELS)
        )

    def apply(self, images: Array, uniforms: Array) -> Array:
        h, w = images.shape[2:]
        if h == w == self.size:
            return images
        down, across = (_resampling(s, self.size, self.interpolation) for s in (h, w))
        # Between its two passes, too, Pillow keeps to grey levels: bicubic overshoots at edges.
        values = np.clip(images.astype(np.float32) @ across.T, 0, 255)
        values = np.clip(down @ values, 0, 255)
        return values if images.dtype == np.float32 else (values + 0.5).astype(images.dtype)


def _triangle(x: Array) -> Array:
    return np.maximum(0, 1 - np.abs(x))


def _cubic(x: Array) -> Array:
    """Keys' cubic convolution (1981) with a = -0.5."""
    x = np.abs(x)
    return np.where(
        x < 1, (1.5 * x - 2.5) * x * x + 1, np.where(x < 2, ((-0.5 * x + 2.5) * x - 4) * x + 2, 0)
    )


KERNELS: dict[str, tuple[Callable[[Array], Array] | None, float]] = {
    "nearest": (None, 0),
    "bilinear": (_triangle, 1),
    "bicubic": (_cubic, 2),
}


@lru_cache(maxsize=32)
def _resampling(source: int, target: int, interpolation: str) -> Array:
    """Return the ``[target, source]`` matrix that resamples one axis; each row sums to 1."""
    kernel, reach = KERNELS[interpolation]
    scale = source / target
    centres = (np.arange(target) + 0.5) * scale
    if kernel is None:
        weights = np.eye(source)[centres.astype(np.intp)]
    else:
        stretch = max(1.0, scale)
        distance = np.arange(source) + 0.5 - centres[:, None]
        weights = np.where(np.abs(distance) < reach * stretch, kernel(distance / stretch), 0)
        weights /= weights.sum(1, keepdims=True)
    return weights.astype(np.float32)


# --- how they are lit -----------------------------------------------------------------


@dataclass(frozen=True)
class ColorJitter(Operation):
    """Change brightness, contrast, saturation and hue, each image by its own factors.

    A factor is uniform in [max(0, 1 - value), 1 + value]; for ``hue`` a shift in [-value, value] of
    a full turn. Those that are not 0 are applied in an order drawn for each image.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    draws: ClassVar[int] = 5

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            _require(0 <= getattr(self, name) < math.inf, name, getattr(self, name), "0 or more")
        _require(0 <= self.hue <= 0.5, "hue", self.hue, "0 to 0.5")

    def apply(self, images: Array, uniforms: Array) -> Array:
        adjusts = [
            (adjust, _between(low, high, uniforms[:, column]))
            for column, (adjust, low, high) in enumerate(self._ranges())
            if low < high
        ]
        if len(adjusts) < 2:
            for adjust, factors in adjusts:
                images = adjust(images, factors)
            return images
        images = images.astype(np.float32)
        orders = list(itertools.permutations(range(len(adjusts))))
        which = np.array(orders)[(uniforms[:, 4] * len(orders)).astype(np.intp)]
        for turn in which.T:
            for k, (adjust, factors) in enumerate(adjusts):
                now = np.flatnonzero(turn == k)
                if len(now):
                    images[now] = adjust(images[now], factors[now])
        return images

    def _ranges(self) -> list[tuple[Callable[[Array, Array], Array], float, float]]:
        return [
            (adjust_brightness, max(0.0, 1 - self.brightness), 1 + self.brightness),
            (adjust_contrast, max(0.0, 1 - self.contrast), 1 + self.contrast),
            (adjust_saturation, max(0.0, 1 - self.saturation), 1 + self.saturation),
            (adjust_hue, -self.hue, self.hue),
        ]


def adjust_brightness(images: Array, factors: Array) -> Array:
    """Blend image i with black: 0 gives black, 1 the image, 2 twice its light."""
    return _scaled(images, factors)


def adjust_contrast(images: Array, factors: Array) -> Array:
    """Blend image i with its mean grey, rounded to a grey level as Pillow does."""
    values = images.astype(np.float32)
    means = values.mean((2, 3))
    grey = np.floor(means @ LUMA + 0.5) if images.shape[1] == 3 else np.floor(means.mean(1) + 0.5)
    return _blended(values, grey[:, None, None, None], factors)


def adjust_saturation(images: Array, factors: Array) -> Array:
    """Blend image i with its grey version: 0 gives grey, 1 the image."""
    _require_colour(images, "saturation")
    values = images.astype(np.float32)
    return _blended(values, _grey(values)[:, None], factors)


def _scaled(images: Array, factors: Array) -> Array:
    values = images.astype(np.float32)
    values *= _column(factors)
    return np.clip(values, 0, 255, out=values)


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
    """Turn the hue of image i by ``shifts[i]`` of a circle, -0.5 to 0.5; the rest of HSV stays.

    This is the hexagonal hue of HSV without its division. With M and m a pixel's largest and
    smallest channel and C = M - m, every angle is kept multiplied by C, in sixths of a turn: C
    times the distance of the hue from red is |g - b| + (M - r) + 2 (min(g, b) - m), its side the
    sign of g - b, and a channel at distance D from its own primary has the value
    m + C * clip(2 - D, 0, 1).
    """
    _require_colour(images, "hue")
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
        # The distance is at most 9 C; folding it twice at C * 3 leaves how far it is from opposite.
        np.abs(
            angle if primary is None else np.subtract(angle, primary, out=distance), out=distance
        )
        for _ in range(2):
            distance -= half_turn
            np.abs(distance, out=distance)
        np.subtract(reach, distance, out=distance)
        np.clip(distance, smallest, largest, out=channel)
    return values


def _between(low: float, high: float, uniforms: Array) -> Array:
    return (low + (high - low) * uniforms).astype(np.float32)


def _column(factors: Array) -> Array:
    return np.asarray(factors, np.float32)[:, None, None, None]


def _require_colour(images: Array, name: str) -> None:
    if images.shape[1] != 3:
        raise UserError(
            f"color_jitter.{name}: images have {images.shape[1]} channel(s), {name} needs 3"
        )


# --- what the network sees ------------------------------------------------------------


@dataclass(frozen=True)
class Normalize(Operation):
    """Turn grey levels 0..255 into float32 ``(x / 255 - mean) / std``, per channel.

    ``mean`` and ``std`` are in units of 0..1, one value for each channel or one for all. Left out,
    they are to be filled in from the data set's own statistics (`loading.statistics`) before use.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        _require(
            (self.mean is None) == (self.std is None),
            "mean, std",
            (self.mean, self.std),
            "both or none",
        )
        if self.std is not None:
            _require(
                bool(self.std) and all(s > 0 for s in self.std), "std", self.std, "values above 0"
            )
            _require(bool(self.mean), "mean", self.mean, "a value for each channel, or one for all")

    def apply(self, images: Array, uniforms: Array) -> Array:
        if self.mean is None or self.std is None:
            raise UserError(
                "normalize: mean and std are not set; give them, or the data set's statistics"
            )
        mean, std = (np.asarray(v, np.float64)[:, None, None] for v in (self.mean, self.std))
        channels = images.shape[1]
        for name, given in (("mean", mean), ("std", std)):
            if len(given) not in (1, channels):
                raise UserError(
                    f"normalize.{name}: {len(given)} values for images of {channels} channel(s)"
                )
        values = images.astype(np.float32)
        values *= (1 / (255 * std)).astype(np.float32)
        values -= (mean / std).astype(np.float32)
        return values


OPERATIONS: dict[str, type[Operation]] = {
    "random_crop": RandomCrop,
    "horizontal_flip": HorizontalFlip,
    "vertical_flip": VerticalFlip,
    "resize": Resize,
    "cutout": Cutout,
    "color_jitter": ColorJitter,
    "normalize": Normalize,
}


def _require(right: bool, key: str, received: object, expected: str) -> None:
    if not right:
        raise UserError(f"{key}: received {received!r}, expected {expected}")
