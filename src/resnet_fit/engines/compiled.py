"""A network's forward pass as one static graph, by `paddle.jit.to_static`.

It saves the time between operations, which a GPU waits for, and with CINN fuses them. Results were
compared on a CPU; what it brings on a GPU was not measured.
"""

from __future__ import annotations

import types
import warnings
from typing import Any

import paddle
from paddle import Tensor, nn


def compile_forward(network: nn.Layer, backend: str | None = None) -> None:
    """Let a network compute by a static graph, made at the first batch of each size.

    For Paddle's own operations: those of the onednn engine have no static form.

    Args:
        backend: None, or ``CINN``, Paddle's compiler, where the installed Paddle has it.
    """
    static = paddle.jit.to_static(network.forward, backend=backend, full_graph=True)

    def forward(self: nn.Layer, images: Tensor) -> Any:
        with warnings.catch_warnings():  # Paddle speaks to its own developers while it traces
            warnings.simplefilter("ignore")
            return static(images)

    # `paddle.Model` reads the names of a method's arguments, which a static function hides.
    network.forward = types.MethodType(forward, network)
