"""A network's forward pass as one static graph, by `paddle.jit.to_static`.

It saves the time between operations, which a GPU waits for. With CINN, Paddle 3 fuses them; Paddle
2.6 has a pass of its own for batch norms with their ReLU, which takes images of float16 with their
channels last. Results were compared on a CPU, which has neither; the speed on a GPU was not
measured.
"""

from __future__ import annotations

import warnings
from typing import Any

import paddle
from paddle import Tensor, nn

from resnet_fit.backends.forward import replace_forward
from resnet_fit.errors import UserError
from resnet_fit.home import STATIC_GRAPH, home_with


def check_cinn(device: str) -> None:
    """Raise UserError where Paddle would take the plain static graph instead, without a word."""
    reason = None
    if device == "cpu":
        reason = "the device is cpu, and Paddle's compiler is for GPUs"
    elif not paddle.is_compiled_with_cinn():
        reason = "the installed Paddle was built without it"
    if reason is not None:
        raise UserError(f"training.compile: received cinn, but {reason}; use static")


def compile_forward(
    network: nn.Layer, backend: str | None = None, fuse_norms: bool = False
) -> None:
    """Let a network compute by a static graph, made at the first batch of each size.

    For Paddle's own operations: those of the onednn backend have no static form.

    Args:
        backend: None, or ``CINN``, Paddle's compiler; see `check_cinn`.
        fuse_norms: batch norm and ReLU as one operation, by Paddle 2.6 on a GPU. It is for networks
            in float16 on the channels_last backend: Paddle's kernel takes no other layout, and does
            not look. Paddle 3 leaves such fusing to CINN, and this without effect.
    """
    strategy = paddle.static.BuildStrategy()
    strategy.fuse_bn_act_ops = fuse_norms
    strategy.fuse_bn_add_act_ops = fuse_norms
    static = paddle.jit.to_static(
        network.forward.__func__, build_strategy=strategy, backend=backend, full_graph=True
    )

    def compute(forward: Any, images: Tensor) -> Any:
        own = forward.__self__  # the network, or a copy of it, which gets a graph of its own
        of_network = static.__get__(own, type(own))
        # While it traces, Paddle writes files to the home folder, and warnings for its developers.
        with home_with(*STATIC_GRAPH), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return of_network(images)

    replace_forward(network, compute)
