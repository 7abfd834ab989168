"""How oneDNN's operations take part in Paddle's dynamic graph.

Each computes the wanted gradients only, in one backward pass, and no second derivatives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from itertools import compress
from typing import Any
from weakref import ref

import paddle
from paddle import Tensor
from paddle.autograd import PyLayer

from resnet_fit.errors import UserError


class _Graph:
    """Lives as long as Paddle keeps the backward pass that holds it."""


class _GraphHolder(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: Tensor, graph: _Graph) -> Tensor:
        ctx.graph = graph
        return x.view(list(x.shape))

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        return dy


def refuse_second_backward(x: Tensor) -> Tensor:
    """``x``, such that a second backward pass raises an error, where Paddle would crash.

    In a pass of ``backward``, Paddle drops what an operation written in Python has kept, also with
    ``retain_graph=True``.
    """
    if x.stop_gradient or not paddle.is_grad_enabled():
        return x
    graph = _Graph()
    kept, y = ref(graph), _GraphHolder.apply(x, graph)

    def check(_: Tensor) -> None:
        if kept() is None:
            raise UserError(
                "a second backward() through one graph: with the onednn backend Paddle cannot do "
                "that; add the losses, or use paddle.grad with retain_graph=True, or "
                "use_backend(network, 'paddle')"
            )

    y.register_hook(check)
    return y


@dataclass(slots=True)
class Inputs:
    """The tensors that an operation takes, or None, and which of them want a gradient."""

    tensors: tuple[Any, ...]
    wanted: list[bool]


# Paddle 2.6 hands the gradients of a list to its last tensor alone.
_TAKES_LISTS = not paddle.__version__.startswith("2.")


def apply(operation: type[PyLayer], tensors: tuple[Tensor | None, ...], *settings: Any) -> Tensor:
    """An operation on several tensors. Paddle sees those that want a gradient, as one list.

    `paddle.grad` may want the gradients of some tensors only. An operation on single tensors would
    then have to return None for the others, and is not told which they are; for a list it may
    return all.
    """
    wanted = [tensor is not None and not tensor.stop_gradient for tensor in tensors]
    seen = list(compress(tensors, wanted))
    return operation.apply(Inputs(tensors, wanted), settings, *([seen] if _TAKES_LISTS else seen))


def only_wanted(wanted: list[bool], *gradients: Tensor | None) -> Any:
    """The wanted ones of all gradients, as Paddle takes them from such an operation."""
    chosen = compress(gradients, wanted)
    return list(chosen) if _TAKES_LISTS else tuple(chosen)


def first_order(backward: Callable[..., Any]) -> Callable[..., Any]:
    """A backward pass that refuses to be differentiated: Paddle does not see what oneDNN does."""

    @wraps(backward)
    def checked(*arguments: Any) -> Any:
        if paddle.is_grad_enabled():  # only under create_graph=True
            raise UserError(
                "create_graph=True: the onednn backend has no second derivatives; use "
                "use_backend(network, 'paddle')"
            )
        return backward(*arguments)

    return checked
