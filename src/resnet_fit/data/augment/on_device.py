"""The same operations in Paddle, for the device that trains the network, such as a GPU.

The same random numbers give the same images as on the host, up to rounding of float32. Images are
float32. Importing this module imports Paddle.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import Tensor

from resnet_fit.data import mixing
from resnet_fit.data.augment.colour import LUMA, ColorJitter, require_colour
from resnet_fit.data.augment.erasing import Cutout, RandomErasing
from resnet_fit.data.augment.geometry import HorizontalFlip, RandomCrop, VerticalFlip
from resnet_fit.data.augment.normalize import Normalize
from resnet_fit.data.augment.operation import Array, Operation
from resnet_fit.data.augment.pipeline import Unfinished

# `paddle.Model` copies the tensors of every loader, Paddle's own too, and warns about the copy.
warnings.filterwarnings("ignore", "To copy construct from a tensor", UserWarning)


def finish(batch: Unfinished) -> Tensor:
    """Apply the remaining operations on Paddle's current device: images ``[N, C, H, W]``."""
    images = paddle.to_tensor(batch.images).astype("float32")
    for operation, uniforms in batch.steps:
        images = apply(operation, images, uniforms)
    return images


@functools.singledispatch
def apply(operation: Operation, images: Tensor, uniforms: Array) -> Tensor:
    """`Operation.apply` on a device."""
    raise NotImplementedError(type(operation).__name__)


def host_operations(operations: Sequence[Operation]) -> int:
    """How many operations run on the host: all up to the last one that is not implemented here."""
    # By the class itself: a class derived from one of these may compute something else.
    here = [type(op) in apply.registry for op in operations]
    return max((i + 1 for i, can in enumerate(here) if not can), default=0)


@apply.register
def _(operation: RandomCrop, images: Tensor, uniforms: Array) -> Tensor:
    top, left, (h, w) = operation.windows(uniforms, *images.shape[2:])
    if operation.padding:
        mode = {"zero": "constant", "reflect": "reflect"}[operation.mode]
        images = F.pad(images, [operation.padding] * 4, mode=mode)
    rows = paddle.to_tensor(top[:, None, None, None] + np.arange(h)[:, None])
    columns = paddle.to_tensor(left[:, None, None, None] + np.arange(w))
    return images.take_along_axis(rows, axis=2).take_along_axis(columns, axis=3)


@apply.register
def _(operation: HorizontalFlip, images: Tensor, uniforms: Array) -> Tensor:
    return paddle.where(_column(uniforms[:, 0] < operation.p), images.flip(3), images)


@apply.register
def _(operation: VerticalFlip, images: Tensor, uniforms: Array) -> Tensor:
    return paddle.where(_column(uniforms[:, 0] < operation.p), images.flip(2), images)


@apply.register(Cutout)
@apply.register(RandomErasing)
def _(operation: Cutout | RandomErasing, images: Tensor, uniforms: Array) -> Tensor:
    h, w = images.shape[2:]
    top, bottom, left, right = operation.boxes(uniforms, h, w).T[:, :, None]
    rows = (top <= np.arange(h)) & (np.arange(h) < bottom)
    columns = (left <= np.arange(w)) & (np.arange(w) < right)
    kept = ~(rows[:, None, :, None] & columns[:, None, None, :])
    return images * paddle.to_tensor(kept.astype(np.float32))


@apply.register
def _(operation: Normalize, images: Tensor, uniforms: Array) -> Tensor:
    scale, shift = operation.scale_and_shift(images.shape[1])
    return images * paddle.to_tensor(scale) - paddle.to_tensor(shift)


@apply.register
def _(operation: ColorJitter, images: Tensor, uniforms: Array) -> Tensor:
    factors, turns = operation.choices(uniforms)
    for turn in turns:
        parts, places = [], []
        for k, name in enumerate(factors):
            now = np.flatnonzero(turn == k)
            if len(now):
                part = images[paddle.to_tensor(now)]
                parts.append(ADJUST[name](part, _column(factors[name][now])))
                places.append(now)
        images = paddle.concat(parts)[paddle.to_tensor(np.argsort(np.concatenate(places)))]
    return images


def _brightness(images: Tensor, factors: Tensor) -> Tensor:
    return (images * factors).clip(0, 255)


def _contrast(images: Tensor, factors: Tensor) -> Tensor:
    means = images.mean([2, 3])
    grey = means @ paddle.to_tensor(LUMA) if images.shape[1] == 3 else means.mean(1)
    return _blended(images, (grey + 0.5).floor().reshape([-1, 1, 1, 1]), factors)


def _saturation(images: Tensor, factors: Tensor) -> Tensor:
    require_colour(images, "saturation")
    grey = (images * paddle.to_tensor(LUMA[:, None, None])).sum(1, keepdim=True)
    return _blended(images, grey, factors)


def _hue(images: Tensor, shifts: Tensor) -> Tensor:
    """By the geometry of `resnet_fit.data.augment.colour.adjust_hue`."""
    require_colour(images, "hue")
    red, green, blue = images.split(3, axis=1)
    largest, smallest = images.max(1, keepdim=True), images.min(1, keepdim=True)
    chroma, side = largest - smallest, green - blue
    distance = side.abs() + (largest - red) + 2 * (paddle.minimum(green, blue) - smallest)
    angle = paddle.where(side < 0, -distance, distance) + 6 * shifts * chroma
    third = 2 * chroma
    distances = paddle.concat([angle, angle - third, angle + third], axis=1).abs()
    for _ in range(2):
        distances = (distances - 3 * chroma).abs()
    return paddle.minimum(paddle.maximum(smallest + third - distances, smallest), largest)


ADJUST: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "brightness": _brightness,
    "contrast": _contrast,
    "saturation": _saturation,
    "hue": _hue,
}


def _blended(images: Tensor, grey: Tensor, factors: Tensor) -> Tensor:
    return (images * factors + grey * (1 - factors)).clip(0, 255)


def _column(values: Array) -> Tensor:
    return paddle.to_tensor(values.reshape(-1, 1, 1, 1))


def mixup(images: Tensor, partners: Array, share: float) -> Tensor:
    """As `resnet_fit.data.mixing.mixup`."""
    return images * share + images[paddle.to_tensor(partners)] * (1 - share)


def cutmix(
    images: Tensor, partners: Array, share: float, centre: tuple[float, float]
) -> tuple[Tensor, float]:
    """As `resnet_fit.data.mixing.cutmix`."""
    inside, share = mixing.rectangle(share, centre, *images.shape[2:])
    others = images[paddle.to_tensor(partners)]
    return paddle.where(paddle.to_tensor(inside), others, images), share
