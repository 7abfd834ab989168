"""Layers of a network by their names: to freeze them, or to train them at a rate of their own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from resnet_fit.errors import UserError, suggest

if TYPE_CHECKING:
    from paddle import nn

# Stands for every layer but the last.
BACKBONE = "backbone"


def is_within(name: str, layer: str, head: str) -> bool:
    """Whether a parameter or layer is ``layer`` or lies in it.

    Args:
        name: of the parameter or layer.
        layer: a layer's name, or `BACKBONE`.
        head: the last layer's name.
    """
    if layer == BACKBONE:
        return not is_within(name, head, head)
    return name == layer or name.startswith(layer + ".")


def head_of(network: nn.Layer) -> str:
    """The name of the last layer, which gives the logits."""
    return [name for name, _ in network.named_children()][-1]


def check_layers(network: nn.Layer, layers: Iterable[str], key: str) -> None:
    """Refuse what is not the name of a layer of ``network``.

    Raises:
        UserError: naming ``key``, what was received and what there is.
    """
    names = [BACKBONE, *(name for name, _ in network.named_sublayers())]
    for layer in layers:
        if layer not in names:
            first = [name for name in names if "." not in name]
            raise UserError(
                f"{key}: the network has no layer {layer!r}.{suggest(layer, names)} "
                f"Valid: {', '.join(first)}, or a layer within them"
            )


def freeze(network: nn.Layer, layers: Iterable[str] = (BACKBONE,)) -> None:
    """Keep layers of a network as they are: no gradient, and norms by their running statistics.

    Without the second, a norm's running statistics would go on to follow the images, and the layer
    would change after all.

    Args:
        layers: names such as ``layer1`` or ``layer1.0.conv1``; ``backbone`` is all but the last. To
            be called before the optimizer is made.

    Raises:
        UserError: there is no such layer.
    """
    from paddle import nn

    layers = list(layers)
    check_layers(network, layers, "freeze")
    head = head_of(network)
    for name, sublayer in network.named_sublayers():
        if not any(is_within(name, layer, head) for layer in layers):
            continue
        for parameter in sublayer.parameters(include_sublayers=False):
            parameter.stop_gradient = True
        if isinstance(sublayer, nn.BatchNorm2D):
            sublayer._use_global_stats = True
