"""Replaces a network's forward pass by one that calls it."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import paddle
from paddle import Tensor, nn


def replace_forward(
    network: nn.Layer, compute: Callable[[Callable[[Tensor], Any], Tensor], Any]
) -> None:
    """Let a network compute by ``compute(forward, images)``.

    ``forward`` is the one it had before, bound to the network, or to a copy of it. Static graphs,
    as `paddle.jit.save` makes them, get that one alone.

    `paddle.Model` learns from the names of a method's arguments how many inputs a network has;
    static functions and decorators hide them.
    """
    before = network.forward.__func__

    # Where it makes a graph, Paddle 2.6 compiles a function's source again, without its closure.
    @paddle.jit.not_to_static
    def forward(self: nn.Layer, images: Tensor) -> Any:
        own = types.MethodType(before, self)
        if not paddle.in_dynamic_mode():
            return own(images)
        return compute(own, images)

    network.forward = types.MethodType(forward, network)
