"""How large a network is, and how much work one image costs it."""

from __future__ import annotations

import math
from typing import Any

import paddle
from paddle import Tensor, nn


def count_parameters(network: nn.Layer) -> int:
    """Trainable parameters of ``network``, without running statistics."""
    return sum(math.prod(p.shape) for p in network.parameters() if not p.stop_gradient)


def count_macs(network: nn.Layer, image_size: int, in_channels: int = 3) -> int:
    """Multiply-accumulates of the convolutions and linear layers for one square image.

    Runs the network once, in dynamic mode, on a black image of ``image_size`` pixels a side.
    Half of what is published as FLOPs where both operations count.
    """
    macs = 0

    def count(layer: nn.Layer, _: Any, output: Tensor) -> None:
        nonlocal macs
        if isinstance(layer, nn.Linear):
            macs += math.prod(layer.weight.shape)
        else:
            macs += math.prod(layer.weight.shape) * math.prod(output.shape[2:])

    counted = (nn.Conv2D, nn.Linear)
    training = [layer for layer in network.sublayers(include_self=True) if layer.training]
    hooks = [
        layer.register_forward_post_hook(count)
        for layer in network.sublayers(include_self=True)
        if isinstance(layer, counted)
    ]
    try:
        network.eval()
        with paddle.no_grad():
            network(paddle.zeros([1, in_channels, image_size, image_size]))
    finally:
        for hook in hooks:
            hook.remove()
        for layer in training:
            layer.training = True
    return macs
