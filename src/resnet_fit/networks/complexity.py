"""How large a network is, and how much work one image costs it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import paddle
from paddle import Tensor, nn

# Their work is known: one multiply-accumulate for each weight at each place of the output.
_MULTIPLY = (nn.Conv1D, nn.Conv2D, nn.Conv3D, nn.Linear)
_BATCH_NORMS = (nn.BatchNorm, nn.BatchNorm1D, nn.BatchNorm2D, nn.BatchNorm3D, nn.SyncBatchNorm)
# They have parameters, and by the field's custom their work does not count.
_NOT_COUNTED = (
    *_BATCH_NORMS,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.InstanceNorm1D,
    nn.InstanceNorm2D,
    nn.InstanceNorm3D,
    nn.PReLU,
)


@dataclass
class LayerCost:
    """One layer of a network.

    Attributes:
        name: its path in the network, such as ``layer1.0.conv1``.
        kind: the name of its class.
        output: shape of what it gives for one image, without the batch's axis; None where it was
            not called, or gives no tensor.
        parameters: its own, without those of layers inside and without running statistics.
        macs: multiply-accumulates for one image; None where they cannot be told, as of a layer of
            another kind with parameters of its own.
    """

    name: str
    kind: str
    output: tuple[int, ...] | None
    parameters: int
    macs: int | None


def count_parameters(network: nn.Layer) -> int:
    """Trainable parameters of ``network``, without running statistics."""
    return sum(math.prod(p.shape) for p in network.parameters() if not p.stop_gradient)


def count_frozen(network: nn.Layer) -> int:
    """Parameters of ``network`` that are not trained; running statistics are none."""
    statistics = _statistics(network)
    return sum(
        math.prod(p.shape)
        for p in network.parameters()
        if p.stop_gradient and id(p) not in statistics
    )


def count_buffers(network: nn.Layer) -> int:
    """Numbers that a network keeps beside its parameters: running statistics and buffers."""
    kept = {id(tensor): tensor for tensor in network.buffers()} | _statistics(network)
    return sum(math.prod(tensor.shape) for tensor in kept.values())


def count_macs(network: nn.Layer, image_size: int | tuple[int, int], in_channels: int = 3) -> int:
    """Multiply-accumulates of the convolutions and linear layers for one image.

    Runs the network once, in dynamic mode, on a black image. Half of what is published as FLOPs
    where both operations count.

    Args:
        image_size: its height and width in pixels; one number for a square image.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    return sum(cost.macs or 0 for cost in layer_costs(network, (in_channels, height, width)))


def layer_costs(network: nn.Layer, image_shape: tuple[int, int, int]) -> list[LayerCost]:
    """Every layer that has parameters or no layers inside, in the order of the first calls.

    Runs the network once, in dynamic mode, on a black image ``(C, H, W)``. Layers that were not
    called come last. What a network computes by functions, as ReLU, additions and pools in ours, is
    no layer.
    """
    statistics = _statistics(network)
    called: dict[str, LayerCost] = {}
    idle: dict[str, LayerCost] = {}
    hooks = []
    for name, layer in network.named_sublayers(include_self=True):
        own = [p for p in layer.parameters(include_sublayers=False) if id(p) not in statistics]
        if type(layer) is nn.Identity or not (own or not list(layer.children())):
            continue
        parameters = sum(math.prod(p.shape) for p in own)
        idle[name] = LayerCost(name, type(layer).__name__, None, parameters, 0)

        def note(layer: nn.Layer, _: Any, output: Any, name: str = name) -> None:
            cost = called[name] = idle.pop(name) if name in idle else called[name]
            cost.output = tuple(output.shape[1:]) if isinstance(output, Tensor) else None
            macs = _macs(layer, output) if cost.parameters else 0
            cost.macs = None if macs is None or cost.macs is None else cost.macs + macs

        hooks.append(layer.register_forward_post_hook(note))
    try:
        with in_mode(network, training=False), paddle.no_grad():
            network(paddle.zeros([1, *image_shape]))
    finally:
        for hook in hooks:
            hook.remove()
    return [*called.values(), *idle.values()]


@contextmanager
def in_mode(network: nn.Layer, training: bool) -> Iterator[None]:
    """In the block, a network trains or evaluates; then each layer is in its own mode again."""
    modes = [(layer, layer.training) for layer in network.sublayers(include_self=True)]
    (network.train if training else network.eval)()
    try:
        yield
    finally:
        for layer, was in modes:
            layer.training = was


def _macs(layer: nn.Layer, output: Any) -> int | None:
    if isinstance(layer, _NOT_COUNTED):
        return 0
    if not isinstance(layer, _MULTIPLY) or not isinstance(output, Tensor):
        return None
    channels_last = getattr(layer, "_data_format", "").endswith("C")
    is_last = channels_last or isinstance(layer, nn.Linear)
    places = output.shape[1:-1] if is_last else output.shape[2:]
    return math.prod(layer.weight.shape) * math.prod(places)


def _statistics(network: nn.Layer) -> dict[int, Tensor]:
    """Running means and variances, which Paddle lists among the parameters."""
    norms = (layer for layer in network.sublayers(True) if isinstance(layer, _BATCH_NORMS))
    return {id(tensor): tensor for norm in norms for tensor in (norm._mean, norm._variance)}
