"""The blocks that a residual network repeats, and the layers they are made of."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from resnet_fit.backends import covered
from resnet_fit.backends.backend import HasBackend
from resnet_fit.networks.families.resnet import EXPANSION


def conv(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1
) -> nn.Layer:
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
        groups=groups,
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


@dataclass(frozen=True)
class Layers:
    """What every block is made of, bound once and handed down.

    Replacing one (``dataclasses.replace(Layers(), norm=...)``) changes it in the whole network.
    ``conv(in_channels, out_channels, kernel_size, stride=1)`` has no bias, and takes ``groups`` as
    a fifth where a network has any; ``norm(channels, weight=1.0)`` starts with that scale.
    """

    conv: Callable[..., nn.Layer] = conv
    norm: Callable[..., nn.Layer] = batch_norm


class BackendLayer(HasBackend, nn.Layer):
    """A layer that a backend computes, on images in the layout of that backend.

    Within a network, such layers hand each other these images by :func:`run`. Called by hand, or
    because it has hooks, it takes and gives images ``[N, C, H, W]`` under every backend. A subclass
    defines ``compute``.
    """

    def compute(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        ops = self.operations
        return ops.leave(self.compute(ops.enter(x)))


def run(operations: Any, layer: nn.Layer, x: Tensor) -> Tensor:
    """A layer's output, in the layout of the backend of ``operations``, as ``x`` is.

    A layer that is no `BackendLayer`, or has another backend, is called with ``[N, C, H, W]``.
    """
    if covered.is_untouched(layer):
        if type(layer) is nn.Identity:
            return x
        if _computes_by(operations, layer):
            return layer.compute(x)
    return operations.call(layer, x)


def _computes_by(operations: Any, layer: nn.Layer) -> bool:
    return (
        isinstance(layer, BackendLayer)
        and type(layer).forward is BackendLayer.forward
        and layer.operations is operations
    )


class Stage(BackendLayer, nn.Sequential):
    """Layers, one after the other."""

    def compute(self, x: Tensor) -> Tensor:
        for layer in self:
            x = run(self.operations, layer, x)
        return x


class ZeroPad(BackendLayer):
    """Shortcut without parameters: every ``stride``-th pixel, then channels of zeros appended.

    He et al. 2015, "Deep residual learning", section 3.3, option A.
    """

    def __init__(self, new_channels: int, stride: int) -> None:
        super().__init__()
        self.new_channels = new_channels
        self.stride = stride

    def compute(self, x: Tensor) -> Tensor:
        return self.operations.zero_pad(x, self.new_channels, self.stride)


class Projection(BackendLayer, nn.Sequential):
    """Shortcut by a 1x1 convolution and a norm: option B of the same section.

    Args:
        average: whether the mean of each 2x2 pixels comes first, so that a stride passes no pixel
            over (He et al. 2018, "Bag of tricks", ResNet-D).
    """

    def __init__(self, conv: nn.Layer, norm: nn.Layer, average: bool = False) -> None:
        super().__init__(conv, norm)
        self.average = average

    def compute(self, x: Tensor) -> Tensor:
        conv, norm = self
        if self.average:
            x = self.operations.average_pool(x, ceil=True)
        return self.operations.normalize(norm, self.operations.convolve(conv, x))


class StochasticDepth(BackendLayer):
    """In training, drops each image's branch with probability ``p`` and scales the others by
    1 / (1 - p).

    Huang et al. 2016, "Deep networks with stochastic depth"; scaled in training, so that evaluation
    is the network as it stands. Random numbers are Paddle's: see `resnet_fit.callbacks.StepSeed`.

    Args:
        p: how often a branch is left out.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def compute(self, branch: Tensor) -> Tensor:
        if not self.training:
            return branch
        if not paddle.in_dynamic_mode():  # Paddle removes dropout from saved graphs
            return branch * F.dropout(paddle.ones_like(branch[:, :1, :1, :1]), self.p)
        stays = paddle.rand([branch.shape[0], 1, 1, 1]) >= self.p
        return branch * (stays.astype("float32") / (1 - self.p)).astype(branch.dtype)


def make_shortcut(
    kind: str, in_channels: int, out_channels: int, stride: int, layers: Layers
) -> nn.Layer | None:
    """The shortcut of a block, or None for a plain network.

    It is the identity wherever the shapes allow it. Where they differ, ``kind`` decides:
    ``projection``, ``average`` or ``zero-pad``.
    """
    if kind == "none":
        return None
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    if kind == "zero-pad":
        return ZeroPad(out_channels - in_channels, stride)
    average = kind == "average" and stride > 1
    conv = layers.conv(in_channels, out_channels, 1, 1 if average else stride)
    return Projection(conv, layers.norm(out_channels), average)


class Block(BackendLayer):
    """A branch of convolutions and norms, and a shortcut around it (He et al. 2015, equation 1).

    A subclass names its convolutions and norms ``conv1 bn1 conv2 bn2 ...``; all are followed by a
    ReLU, the last one after the shortcut is added. ``pooled`` is the number of the convolution that
    a max pool follows, if one takes the place of a stride.
    """

    expansion: int
    depth: int
    pooled: int | None
    downsample: nn.Layer | None
    stochastic_depth: nn.Layer | None

    def compute(self, x: Tensor) -> Tensor:
        ops = self.operations
        x, shortcut = ops.fork(x) if self.downsample is not None else (x, None)
        for i in range(1, self.depth):
            x = ops.convolve(getattr(self, f"conv{i}"), x)
            if i == self.pooled:
                x = ops.max_pool(x)
            x = ops.normalize(getattr(self, f"bn{i}"), x, relu=True)
        x = ops.convolve(getattr(self, f"conv{self.depth}"), x)
        last_norm = getattr(self, f"bn{self.depth}")
        if self.downsample is None:
            return ops.normalize(last_norm, x, relu=True)
        x = ops.normalize(last_norm, x)
        if self.stochastic_depth is not None:
            x = run(ops, self.stochastic_depth, x)
        return ops.add(x, run(ops, self.downsample, shortcut))


class BasicBlock(Block):
    """Two 3x3 convolutions (He et al. 2015, figure 5 left); gives ``width`` channels.

    Args:
        stride_on: what has the stride, the first convolution (``3x3``) or, for ``pool``, a max pool
            behind it (Page 2018, "How to train your ResNet", part 4).
    """

    expansion = EXPANSION["basic"]
    depth = 2

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int,
        shortcut: nn.Layer | None,
        layers: Layers,
        last_norm_weight: float = 1.0,
        drop: float = 0.0,
        stride_on: str = "3x3",
    ) -> None:
        super().__init__()
        self.pooled = 1 if stride_on == "pool" and stride > 1 else None
        self.conv1 = layers.conv(in_channels, width, 3, 1 if self.pooled else stride)
        self.bn1 = layers.norm(width)
        self.conv2 = layers.conv(width, width, 3)
        self.bn2 = layers.norm(width, last_norm_weight)
        self.downsample = shortcut
        self.stochastic_depth = StochasticDepth(drop) if drop else None


class BottleneckBlock(Block):
    """1x1, 3x3, 1x1 convolutions (He et al. 2015, figure 5 right); gives ``4 * width`` channels.

    The paper puts the stride on the first 1x1, which then skips three pixels of four; on the 3x3
    (``stride_on="3x3"``, known as v1.5) all of them are seen. With ``pool`` a max pool behind the
    3x3 has the stride.

    Args:
        inner: channels of the 3x3 convolution.
        groups: of the 3x3 convolution (Xie et al. 2017, "Aggregated residual transformations").
    """

    expansion = EXPANSION["bottleneck"]
    depth = 3

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int,
        shortcut: nn.Layer | None,
        layers: Layers,
        last_norm_weight: float = 1.0,
        drop: float = 0.0,
        stride_on: str = "3x3",
        *,
        inner: int,
        groups: int,
    ) -> None:
        super().__init__()
        grouped = {"groups": groups} if groups > 1 else {}  # a user's conv may know none
        self.pooled = 2 if stride_on == "pool" and stride > 1 else None
        stride1 = stride if stride_on == "1x1" else 1
        stride2 = stride if stride_on == "3x3" else 1
        self.conv1 = layers.conv(in_channels, inner, 1, stride1)
        self.bn1 = layers.norm(inner)
        self.conv2 = layers.conv(inner, inner, 3, stride2, **grouped)
        self.bn2 = layers.norm(inner)
        self.conv3 = layers.conv(inner, width * self.expansion, 1)
        self.bn3 = layers.norm(width * self.expansion, last_norm_weight)
        self.downsample = shortcut
        self.stochastic_depth = StochasticDepth(drop) if drop else None
