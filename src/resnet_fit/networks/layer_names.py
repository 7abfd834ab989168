"""Parts of a network by their names: to keep as they are, or to train at a rate of their own."""

from __future__ import annotations

from collections.abc import Iterable

from paddle import nn

from resnet_fit.errors import UserError, suggest

BACKBONE = "backbone"


def part_of(name: str, part: str, head: str) -> bool:
    """Whether a parameter or layer lies in ``part``: a layer's name, or `BACKBONE` for all but
    ``head``."""
    if part == BACKBONE:
        return not part_of(name, head, head)
    return name == part or name.startswith(part + ".")


def head_of(network: nn.Layer) -> str:
    """The name of the layer that gives the logits, the last one."""
    return [name for name, _ in network.named_children()][-1]


def check_parts(network: nn.Layer, parts: Iterable[str], key: str) -> None:
    """Refuse what is not the name of a layer of ``network``.

    Raises:
        UserError: naming ``key``, what was received and what there is.
    """
    names = [BACKBONE, *(name for name, _ in network.named_sublayers())]
    for part in parts:
        if part not in names:
            first = [name for name in names if "." not in name]
            raise UserError(
                f"{key}: no part of the network is named {part!r}.{suggest(part, names)} "
                f"Valid: {', '.join(first)}, or a layer within them"
            )


def freeze(network: nn.Layer, parts: Iterable[str] = (BACKBONE,)) -> None:
    """Keep parts of a network as they are: no gradient, and norms by their running statistics.

    Without the second, a norm's running statistics would go on to follow the images, and the part
    would change after all.

    Args:
        parts: names of layers, such as ``layer1`` or ``layer1.0.conv1``; ``backbone`` is all but
            the last. To be called before the optimizer is made.

    Raises:
        UserError: there is no such part.
    """
    parts = list(parts)
    check_parts(network, parts, "freeze")
    head = head_of(network)
    for name, layer in network.named_sublayers():
        if not any(part_of(name, part, head) for part in parts):
            continue
        for parameter in layer.parameters(include_sublayers=False):
            parameter.stop_gradient = True
        if isinstance(layer, nn.BatchNorm2D):
            layer._use_global_stats = True
