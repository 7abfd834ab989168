"""Spatial operations: crops, flips, resizing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

import cv2
import numpy as np

from resnet_fit.config.registry import part
from resnet_fit.data.augment.operation import Array, Operation
from resnet_fit.errors import UserError, require


@part("augmentation", "random_crop")
@dataclass(frozen=True)
class RandomCrop(Operation):
    """Pad every side by ``padding`` pixels, then cut a window at a random place.

    Args:
        padding: pixels.
        mode: what the padding is filled with: ``zero`` (He et al. 2015, section 4.2), or
            ``reflect``, the image mirrored at its edge, without repeating the edge.
        size: the window's pixels a side; by default it is as large as the image.
    """

    padding: int = 4
    mode: Literal["zero", "reflect"] = "zero"
    size: int | None = None
    draws: ClassVar[int] = 2

    def __post_init__(self) -> None:
        require(self.padding >= 0, "padding", self.padding, "0 or more pixels")
        require(self.mode in ("zero", "reflect"), "mode", self.mode, "zero or reflect")
        require(self.size is None or self.size > 0, "size", self.size, "1 or more pixels")

    @property
    def idle(self) -> bool:
        return self.padding == 0 and self.size is None

    def apply(self, images: Array, uniforms: Array) -> Array:
        top, left, size = self.windows(uniforms, *images.shape[2:])
        return crop(pad(images, self.padding, self.mode), top, left, *size)

    def windows(
        self, uniforms: Array, height: int, width: int
    ) -> tuple[Array, Array, tuple[int, int]]:
        """Upper left corners of the windows in padded images, and the windows' height and width."""
        h, w = (self.size, self.size) if self.size else (height, width)
        rows, columns = height + 2 * self.padding - h + 1, width + 2 * self.padding - w + 1
        if rows < 1 or columns < 1:
            raise UserError(
                f"random_crop.size: {h} does not fit into images of {width}x{height} with a "
                f"padding of {self.padding}"
            )
        if self.mode == "reflect" and self.padding >= min(height, width):
            raise UserError(
                f"random_crop.padding: {self.padding} cannot be reflected from an image of "
                f"{width}x{height}"
            )
        top = (uniforms[:, 0] * rows).astype(np.intp)
        left = (uniforms[:, 1] * columns).astype(np.intp)
        return top, left, (h, w)


def pad(images: Array, width: int, mode: str) -> Array:
    """Pad images by ``width`` pixels of zeros or of their reflection."""
    if width == 0:
        return images
    n, c, h, w = images.shape
    if mode == "reflect":
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
    """Cut out of image i the window whose upper left corner is (``top[i]``, ``left[i]``)."""
    windows = np.lib.stride_tricks.sliding_window_view(images, (height, width), axis=(2, 3))
    return windows[np.arange(len(images)), :, top, left]


@dataclass(frozen=True)
class _Flip(Operation):
    """Mirror images with probability ``p``, or in every other epoch."""

    p: float = 0.5
    alternate: bool = False
    draws: ClassVar[int] = 1

    def __post_init__(self) -> None:
        require(0 <= self.p <= 1, "p", self.p, "a probability, 0 to 1")
        require(not self.alternate or self.p == 0.5, "p", self.p, "0.5 where flips alternate")

    @property
    def alternates(self) -> bool:
        return self.alternate

    @property
    def idle(self) -> bool:
        return self.p == 0

    def apply(self, images: Array, uniforms: Array) -> Array:
        chosen = uniforms[:, 0] < self.p
        if not chosen.any():
            return images
        flipped = images.copy()
        flipped[chosen] = self.mirror(images[chosen])
        return flipped

    @staticmethod
    def mirror(images: Array) -> Array:
        """Return images ``[N, C, H, W]`` mirrored."""
        raise NotImplementedError


@part("augmentation", "horizontal_flip")
class HorizontalFlip(_Flip):
    """Mirror left and right with probability ``p``.

    Args:
        p: the probability.
        alternate: whether each image is mirrored in every second epoch, half of them in even epochs
            and half in odd ones, so that two epochs show each image both ways (Jordan 2024, "94% on
            CIFAR-10 in 3.29 seconds", section 3.6).
    """

    @staticmethod
    def mirror(images: Array) -> Array:
        # All images as one tall image for OpenCV: numpy copies a reversed axis value by value.
        return cv2.flip(images.reshape(-1, images.shape[3]), 1).reshape(images.shape)


@part("augmentation", "vertical_flip")
class VerticalFlip(_Flip):
    """Mirror top and bottom with probability ``p``.

    Args:
        p: the probability.
        alternate: whether each image is mirrored in every second epoch, half of them in even epochs
            and half in odd ones.
    """

    @staticmethod
    def mirror(images: Array) -> Array:
        return images[:, :, ::-1]


@part("augmentation", "resize")
@dataclass(frozen=True)
class Resize(Operation):
    """Resample to a square; area-weighted when shrinking, as Pillow does it.

    Args:
        size: pixels a side.
        interpolation: ``nearest``, ``bilinear`` or ``bicubic``.
    """

    size: int
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"

    def __post_init__(self) -> None:
        require(self.size > 0, "size", self.size, "1 or more pixels")
        require_interpolation(self.interpolation)

    def apply(self, images: Array, uniforms: Array) -> Array:
        h, w = images.shape[2:]
        if h == w == self.size:
            return images
        down, across = (_resampling(s, self.size, self.interpolation) for s in (h, w))
        # Bicubic overshoots at edges. Pillow clips after each of its two passes, so this does too.
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


def require_interpolation(name: str) -> None:
    """Raise UserError for an interpolation that is not one of `KERNELS`."""
    require(name in KERNELS, "interpolation", name, ", ".join(KERNELS))


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
