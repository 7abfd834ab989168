"""Layers of a network by their names: to freeze them, or to train them at a rate of their own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from resnet_fit.errors import UserError, suggest

if TYPE_CHECKING:
    from paddle import nn

# Stands for every layer but the head, which is the last layer and gives the logits.
BACKBONE = "backbone"


def is_within(name: str, layer: str, head: str) -> bool:
    """Whether a parameter or layer is ``layer`` or lies in it.

    Args:
        name: of the parameter or layer.
        layer: a layer's name, or `BACKBONE`.
        head: the name that `head_of` gives.
    """
    if layer == BACKBONE:
        return not is_within(name, head, head)
    return name == layer or name.startswith(layer + ".")


def find_head(network: nn.Layer) -> str | None:
    """The name of the layer that gives the logits, or None where that cannot be told.

    A network may say it by an attribute ``head_name``. Otherwise it is the layer with parameters
    that was defined last, such as ``fc`` or ``classifier.3``, if that is linear.
    """
    from paddle import nn

    said = getattr(network, "head_name", None)
    if said is not None:
        return said
    own = [(n, layer) for n, layer in network.named_sublayers() if layer.parameters(False)]
    return own[-1][0] if own and isinstance(own[-1][1], nn.Linear) else None


def head_of(network: nn.Layer, classes: int | None = None) -> str:
    """The name of the layer that gives the logits, checked against ``classes``.

    Args:
        network: of any origin.
        classes: how many logits the layer must give, where that is known.

    Raises:
        UserError: it cannot be told, or the layer gives another number.
    """
    head, kind = find_head(network), type(network).__name__
    advice = f"define it last in {kind}, or name it there: head_name = 'fc'"
    if head is None:
        raise UserError(f"the layer that gives the logits is not the last of {kind}: {advice}")
    layers = dict(network.named_sublayers())
    if head not in layers:
        raise UserError(f"{kind}.head_name: there is no layer {head!r}.{suggest(head, layers)}")
    weight = getattr(layers[head], "weight", None)
    logits = weight.shape[1] if weight is not None and weight.ndim == 2 else classes
    if classes is not None and logits != classes:
        raise UserError(
            f"the last layer of {kind}, {head}, gives {logits} numbers instead of {classes}, one "
            f"for each class; if another one gives the logits, {advice}"
        )
    return head


def check_layers(network: nn.Layer, layers: Iterable[str], key: str) -> None:
    """Raise UserError for a name that is not a layer of ``network``.

    The message names ``key``, what was received and what there is.
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

    Otherwise running statistics would still follow the images, and the frozen layer's output would
    change.

    Args:
        layers: names such as ``layer1`` or ``layer1.0.conv1``; ``backbone`` is all but the last. To
            be called before the optimizer is made.

    Raises:
        UserError: there is no such layer, or it cannot be told which is the last.
    """
    layers = list(layers)
    check_layers(network, layers, "freeze")
    head = head_of(network) if BACKBONE in layers else ""
    for name, sublayer in network.named_sublayers(include_self=True):
        if not any(is_within(name, layer, head) for layer in layers):
            continue
        for parameter in sublayer.parameters(include_sublayers=False):
            parameter.stop_gradient = True
        if hasattr(sublayer, "_use_global_stats"):  # Paddle's batch norms
            sublayer._use_global_stats = True
