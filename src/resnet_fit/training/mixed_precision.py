"""Automatic mixed precision through `paddle.Model`, which by itself knows float16 only.

Written by Paddle's documentation and not run on a GPU by its authors.
"""

from __future__ import annotations

from typing import Any

import paddle
from paddle import nn

from resnet_fit.config.schema import Amp
from resnet_fit.errors import UserError


def check_amp(amp: Amp, device: str) -> None:
    """Raise UserError where a device cannot do what is asked for."""
    if amp.level == "off":
        return
    if device == "cpu":
        raise UserError(
            f"training.amp.level: received {amp.level}, but mixed precision needs a GPU: on a CPU "
            "Paddle computes in float32 whatever is asked for; use off"
        )
    if amp.dtype == "bfloat16" and not paddle.amp.is_bfloat16_supported():
        raise UserError("training.amp.dtype: this GPU has no bfloat16; use float16")


def use_amp(amp: Amp, network: nn.Layer) -> dict[str, Any] | None:
    """Let a network compute in mixed precision, and return ``amp_configs`` for `Model.prepare`.

    `paddle.Model` casts neither evaluation nor to bfloat16, so the network's own ``forward`` does
    both. Float16 also needs the loss scaled, which `paddle.Model` does when it is given a level.
    """
    if amp.level == "off":
        return None
    network.forward = paddle.amp.auto_cast(level=amp.level, dtype=amp.dtype)(network.forward)
    if amp.dtype == "bfloat16":
        return None
    return {"level": amp.level}
