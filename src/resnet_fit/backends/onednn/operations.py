"""The operations of a network, as its blocks call them."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from resnet_fit.backends import covered
from resnet_fit.backends.onednn import dnnl
from resnet_fit.backends.onednn.addition import AddRelu, Fork
from resnet_fit.backends.onednn.cache import CACHE
from resnet_fit.backends.onednn.convolution import Convolve
from resnet_fit.backends.onednn.copies import Concat, Enter, ZeroPad
from resnet_fit.backends.onednn.differentiation import apply, refuse_second_backward
from resnet_fit.backends.onednn.normalization import normalize
from resnet_fit.backends.onednn.pooling import Pool
from resnet_fit.errors import require


class OneDNN:
    """What `resnet_fit.backends.plain` does, by oneDNN.

    Args:
        dtype: of the activations, ``float32`` or ``bfloat16``. Parameters, their gradients and all
            statistics are float32 in both.
    """

    def __init__(self, dtype: str = "float32") -> None:
        self.dtype = dtype

    def enter(self, images: Tensor) -> Tensor:
        require(images.shape[0] > 0, "images", list(images.shape), "one image or more")
        CACHE.begin(self, *images.shape[:1], *images.shape[2:])  # the channels never change
        return Enter.apply(images, self.dtype)

    def leave(self, x: Tensor) -> Tensor:
        """Images ``[N, C, H, W]`` of float32 again."""
        return refuse_second_backward(x.astype("float32")).transpose([0, 3, 1, 2])

    def call(self, layer: nn.Layer, x: Tensor, relu: bool = False) -> Tensor:
        """Any layer that takes and gives images ``[N, C, H, W]`` of float32."""
        covered.check_float32(layer)
        y = layer(self.leave(x))
        return Enter.apply(F.relu(y) if relu else y, self.dtype)

    def convolve(self, layer: nn.Layer, x: Tensor) -> Tensor:
        if not covered.onednn_convolves(layer):
            return self.call(layer, x)
        weight, bias = layer.weight, layer.bias
        if x.shape[3] != weight.shape[1]:  # never to be taken for padded channels
            raise ValueError(f"a convolution of {weight.shape[1]} channels received {x.shape[3]}")
        geometry = tuple(layer._stride), tuple(layer._updated_padding)
        return apply(Convolve, (x, weight, bias), *geometry)

    def normalize(self, layer: nn.Layer, x: Tensor, relu: bool = False) -> Tensor:
        if not covered.onednn_normalizes(layer, x):
            return self.call(layer, x, relu)
        return normalize(layer, x, relu)

    def add(self, x: Tensor, shortcut: Tensor) -> Tensor:
        if x.shape != shortcut.shape or x.dtype != shortcut.dtype:
            return F.relu(x + shortcut)
        return apply(AddRelu, (x, shortcut))

    def fork(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return (x, x) if x.stop_gradient else Fork.apply(x)

    def max_pool(self, x: Tensor) -> Tensor:
        return Pool.apply(x, dnnl.POOLING_MAX, 3, (1, 1), (1, 1))

    def average_pool(self, x: Tensor, ceil: bool = False) -> Tensor:
        # A last window over the edge of an odd side is the mean of the pixels that there are.
        after = tuple(side % 2 if ceil or side == 1 else 0 for side in x.shape[1:3])
        return Pool.apply(x, dnnl.POOLING_AVERAGE, 2, (0, 0), after)

    def concat(self, x: Tensor, new: Tensor) -> Tensor:
        if x.shape[:3] != new.shape[:3] or x.dtype != new.dtype:
            return paddle.concat([x, new], axis=3)
        return apply(Concat, (x, new))

    def zero_pad(self, x: Tensor, new_channels: int, stride: int) -> Tensor:
        return ZeroPad.apply(x[:, ::stride, ::stride] if stride > 1 else x, new_channels)

    def mean(self, x: Tensor) -> Tensor:
        return refuse_second_backward(x.astype("float32").mean(axis=[1, 2]))
