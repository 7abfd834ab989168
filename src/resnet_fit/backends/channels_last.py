"""The operations of a residual network by Paddle itself, on images ``[N, H, W, C]`` inside.

GPUs with tensor cores multiply half-precision convolutions in this layout; in the other one each
convolution is surrounded by transpositions. Results equal the paddle backend's, as tests on a CPU
show; the speed on a GPU was not measured.
"""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from resnet_fit.backends import covered

# These two do not depend on the layout.
from resnet_fit.backends.plain import add as add
from resnet_fit.backends.plain import fork as fork


def enter(images: Tensor) -> Tensor:
    """Images ``[N, C, H, W]`` as the other operations take them."""
    return images.transpose([0, 2, 3, 1])


def leave(x: Tensor) -> Tensor:
    """Images ``[N, C, H, W]`` again."""
    return x.transpose([0, 3, 1, 2])


def call(layer: nn.Layer, x: Tensor) -> Tensor:
    """Any layer that takes and gives images ``[N, C, H, W]``."""
    return enter(layer(leave(x)))


def convolve(layer: nn.Layer, x: Tensor) -> Tensor:
    if not covered.is_plain_convolution(layer):
        return call(layer, x)
    named = layer._padding_algorithm != "EXPLICIT"  # SAME or VALID
    return F.conv2d(
        x,
        layer.weight,
        layer.bias,
        layer._stride,
        layer._padding_algorithm if named else layer._updated_padding,
        layer._dilation,
        layer._groups,
        data_format="NHWC",
    )


def normalize(layer: nn.Layer, x: Tensor, relu: bool = False) -> Tensor:
    """A norm, and a ReLU where asked for."""
    y = _batch_norm(layer, x) if covered.is_plain_norm(layer) else call(layer, x)
    return F.relu(y) if relu else y


def _batch_norm(layer: nn.BatchNorm2D, x: Tensor) -> Tensor:
    return F.batch_norm(
        x,
        layer._mean,
        layer._variance,
        layer.weight,
        layer.bias,
        training=layer.training,
        momentum=layer._momentum,
        epsilon=layer._epsilon,
        data_format="NHWC",
        use_global_stats=layer._use_global_stats,
    )


def max_pool(x: Tensor) -> Tensor:
    """3x3, stride 2, padding 1."""
    return F.max_pool2d(x, 3, 2, 1, data_format="NHWC")


def average_pool(x: Tensor, ceil: bool = False) -> Tensor:
    """2x2, stride 2."""
    return F.avg_pool2d(x, 2, 2, ceil_mode=ceil, data_format="NHWC")


def concat(x: Tensor, new: Tensor) -> Tensor:
    """The channels of both."""
    return paddle.concat([x, new], axis=3)


def zero_pad(x: Tensor, new_channels: int, stride: int) -> Tensor:
    """Every ``stride``-th pixel, then channels of zeros appended."""
    if stride > 1:
        x = x[:, ::stride, ::stride]
    if paddle.in_dynamic_mode():
        return F.pad(x, [0, 0, 0, 0, 0, 0, 0, new_channels])
    if not new_channels:
        return x
    # See the plain one.
    return concat(x, paddle.zeros_like(x[..., :1]).expand([-1, -1, -1, new_channels]))


def mean(x: Tensor) -> Tensor:
    """The mean over all pixels, ``[N, C]``."""
    return x.mean(axis=[1, 2])
