"""The operations of the networks by Paddle itself: any device, images ``[N, C, H, W]``."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn


def enter(images: Tensor) -> Tensor:
    """Images as the other operations take them."""
    return images


def leave(x: Tensor) -> Tensor:
    """Images ``[N, C, H, W]`` again."""
    return x


def call(layer: nn.Layer, x: Tensor) -> Tensor:
    """Any layer that takes and gives images ``[N, C, H, W]``."""
    return layer(x)


def convolve(layer: nn.Conv2D, x: Tensor) -> Tensor:
    return layer(x)


def normalize(layer: nn.BatchNorm2D, x: Tensor, relu: bool = False) -> Tensor:
    """Batch norm, and a ReLU where asked for."""
    return F.relu(layer(x)) if relu else layer(x)


def add(x: Tensor, shortcut: Tensor) -> Tensor:
    """The sum of a branch and its shortcut, through a ReLU."""
    return F.relu(x + shortcut)


def fork(x: Tensor) -> tuple[Tensor, Tensor]:
    """Two uses of one tensor; their gradients are added."""
    return x, x


def max_pool(x: Tensor) -> Tensor:
    """3x3, stride 2, padding 1."""
    return F.max_pool2d(x, 3, 2, 1)


def average_pool(x: Tensor, ceil: bool = False) -> Tensor:
    """2x2, stride 2; a last odd row or column is left out, or with ``ceil`` averaged by itself."""
    return F.avg_pool2d(x, 2, 2, ceil_mode=ceil)


def concat(x: Tensor, new: Tensor) -> Tensor:
    """The channels of both, in this order."""
    return paddle.concat([x, new], axis=1)


def zero_pad(x: Tensor, new_channels: int, stride: int) -> Tensor:
    """Every ``stride``-th pixel, then channels of zeros appended."""
    if stride > 1:
        x = x[:, :, ::stride, ::stride]
    if paddle.in_dynamic_mode():
        return F.pad(x, [0, 0, 0, new_channels, 0, 0, 0, 0])
    if not new_channels:
        return x
    # A graph that is saved: paddle.inference dies of a pad of channels. In training the pad is
    # faster.
    return concat(x, paddle.zeros_like(x[:, :1]).expand([-1, new_channels, -1, -1]))


def mean(x: Tensor) -> Tensor:
    """The mean over all pixels, ``[N, C]``."""
    return x.mean(axis=[2, 3])
