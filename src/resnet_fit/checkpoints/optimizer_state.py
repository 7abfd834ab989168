"""The numbers of a training as arrays under structured names (``layer1.0.conv1.weight``).

Paddle keys optimizer state by global parameter names (``conv2d_17.w_0``), which change with every
layer built earlier in the process; structured names do not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import paddle
from paddle import nn

Arrays = dict[str, np.ndarray]


def accumulators(
    optimizer: paddle.optimizer.Optimizer, network: nn.Layer
) -> dict[str, paddle.Tensor]:
    """Accumulators by ``<structured parameter name>:<accumulator>``; the schedule is not in it."""
    structured = {p.name: name for name, p in network.named_parameters()}
    state = {}
    for key, value in optimizer.state_dict().items():
        if not isinstance(value, paddle.Tensor):
            continue
        owner = key
        while owner and owner not in structured:  # "conv2d_0.w_0" of "conv2d_0.w_0_velocity_0"
            owner = owner.rpartition("_")[0]
        state[f"{structured[owner]}:{key[len(owner) + 1 :]}"] = value
    return state


def get_optimizer_state(optimizer: paddle.optimizer.Optimizer, network: nn.Layer) -> Arrays:
    """The accumulators as arrays."""
    return {name: value.numpy() for name, value in accumulators(optimizer, network).items()}


def set_optimizer_state(
    optimizer: paddle.optimizer.Optimizer, network: nn.Layer, state: Arrays
) -> None:
    """Put accumulators back; the optimizer may be new and not yet have made its own."""
    names = {name: p.name for name, p in network.named_parameters()}
    renamed: dict[str, Any] = {}
    for key, value in state.items():
        structured, _, accumulator = key.partition(":")
        renamed[f"{names[structured]}_{accumulator}"] = paddle.to_tensor(value)
    schedule = optimizer.state_dict().get("LR_Scheduler")
    if schedule is not None:
        renamed["LR_Scheduler"] = schedule
    optimizer.set_state_dict(renamed)
