"""The blocks that a residual network repeats, and the layers they are made of."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn


def conv(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Layer:
    """A convolution without bias that divides the size of its images by ``stride`` alone.

    Weights start from a normal distribution of variance 2 / fan-out (He et al. 2015, "Delving
    deep into rectifiers", section 2.2, backward case).
    """
    fan_out = out_channels * kernel_size**2
    return nn.Conv2D(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        padding=kernel_size // 2,
        weight_attr=paddle.ParamAttr(
            initializer=nn.initializer.Normal(0.0, math.sqrt(2 / fan_out))
        ),
        bias_attr=False,
    )


def batch_norm(channels: int, weight: float = 1.0) -> nn.Layer:
    """A batch norm whose scale starts at ``weight`` and whose shift starts at zero."""
    return nn.BatchNorm2D(
        channels, weight_attr=paddle.ParamAttr(initializer=nn.initializer.Constant(weight))
    )


class Add(nn.Layer):
    """Sum of a block's branch and its shortcut."""

    def forward(self, branch: Tensor, shortcut: Tensor) -> Tensor:
        return paddle.add(branch, shortcut)


@dataclass(frozen=True)
class Layers:
    """What every block is made of: four factories, bound once and handed down.

    Replacing one of them (``dataclasses.replace(Layers(), norm=...)``) changes it in the whole
    network. ``conv(in_channels, out_channels, kernel_size, stride=1)`` has no bias;
    ``norm(channels, weight=1.0)`` starts with that scale; ``activation()`` maps a tensor and
    ``add()`` two of one shape.
    """

    conv: Callable[..., nn.Layer] = conv
    norm: Callable[..., nn.Layer] = batch_norm
    activation: Callable[[], nn.Layer] = nn.ReLU
    add: Callable[[], nn.Layer] = Add


class ZeroPad(nn.Layer):
    """Shortcut without parameters: every ``stride``-th pixel, then channels of zeros appended.

    He et al. 2015, "Deep residual learning", section 3.3, option A.
    """

    def __init__(self, new_channels: int, stride: int) -> None:
        super().__init__()
        self.new_channels = new_channels
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, [0, 0, 0, self.new_channels, 0, 0, 0, 0])


def make_shortcut(
    kind: str, in_channels: int, out_channels: int, stride: int, layers: Layers
) -> nn.Layer | None:
    """The way around a block, or None for a plain network.

    It is the identity wherever the shapes allow it. Where they differ, ``kind`` decides:
    ``projection`` (a 1x1 convolution and a norm; option B of He et al., section 3.3) or
    ``zero-pad`` (option A).
    """
    if kind == "none":
        return None
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    if kind == "zero-pad":
        return ZeroPad(out_channels - in_channels, stride)
    return nn.Sequential(
        layers.conv(in_channels, out_channels, 1, stride), layers.norm(out_channels)
    )


class BasicBlock(nn.Layer):
    """Two 3x3 convolutions (He et al. 2015, figure 5 left); gives ``width`` channels."""

    expansion = 1

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int,
        shortcut: nn.Layer | None,
        layers: Layers,
        last_norm_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.conv1 = layers.conv(in_channels, width, 3, stride)
        self.bn1 = layers.norm(width)
        self.conv2 = layers.conv(width, width, 3)
        self.bn2 = layers.norm(width, last_norm_weight)
        self.downsample = shortcut
        self.add = layers.add()
        self.relu = layers.activation()

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            out = self.add(out, self.downsample(x))
        return self.relu(out)


class BottleneckBlock(nn.Layer):
    """1x1, 3x3, 1x1 convolutions (He et al. 2015, figure 5 right); gives ``4 * width`` channels.

    The paper puts the stride on the first 1x1, which then skips three pixels of four; on the 3x3
    (``stride_on="3x3"``, known as v1.5) all of them are seen.
    """

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int,
        shortcut: nn.Layer | None,
        layers: Layers,
        last_norm_weight: float = 1.0,
        stride_on: str = "3x3",
    ) -> None:
        super().__init__()
        stride1, stride2 = (stride, 1) if stride_on == "1x1" else (1, stride)
        self.conv1 = layers.conv(in_channels, width, 1, stride1)
        self.bn1 = layers.norm(width)
        self.conv2 = layers.conv(width, width, 3, stride2)
        self.bn2 = layers.norm(width)
        self.conv3 = layers.conv(width, width * self.expansion, 1)
        self.bn3 = layers.norm(width * self.expansion, last_norm_weight)
        self.downsample = shortcut
        self.add = layers.add()
        self.relu = layers.activation()

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        if self.downsample is not None:
            out = self.add(out, self.downsample(x))
        return self.relu(out)
