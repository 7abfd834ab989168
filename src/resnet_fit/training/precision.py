"""Automatic mixed precision through `paddle.Model`, which by itself knows float16 only.

What concerns GPUs is written by Paddle's documentation and was not run on one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import paddle
from paddle import Tensor, nn

from resnet_fit.backends import replace_forward, use_backend
from resnet_fit.config.schema import Amp
from resnet_fit.errors import UserError
from resnet_fit.machine import has_bfloat16


def check_amp(amp: Amp, device: str, engine: str) -> None:
    """Raise UserError where a device cannot do what is asked for."""
    if amp.level == "off":
        return
    if device == "cpu":
        _check_cpu(amp, engine)
    elif amp.dtype == "bfloat16" and not paddle.amp.is_bfloat16_supported():
        raise UserError("training.amp.dtype: this GPU has no bfloat16; use float16")


def _check_cpu(amp: Amp, engine: str) -> None:
    if engine != "onednn":
        raise UserError(
            f"training.amp.level: received {amp.level}, but on a CPU Paddle itself computes in "
            "float32 whatever is asked for; use off, or engine: onednn"
        )
    if amp.dtype != "bfloat16":
        raise UserError(
            f"training.amp.dtype: received {amp.dtype}, but on a CPU there is bfloat16 only"
        )
    if not has_bfloat16():
        raise UserError("training.amp.dtype: this processor has no bfloat16; use level: off")


def use_amp(amp: Amp, network: nn.Layer, engine: str) -> dict[str, Any] | None:
    """Let a network compute in mixed precision, and return ``amp_configs`` for `Model.prepare`.

    `paddle.Model` casts neither evaluation nor to bfloat16, so the network's own ``forward`` does
    both. Float16 also needs the loss scaled, which `paddle.Model` does when it is given a level.
    """
    fast = amp.level != "off"
    if engine == "onednn":
        use_backend(network, engine, amp.dtype if fast else "float32")
        return None
    use_backend(network, engine)
    if not fast:
        return None

    def cast(forward: Callable[[Tensor], Any], images: Tensor) -> Any:
        with paddle.amp.auto_cast(level=amp.level, dtype=amp.dtype):
            return forward(images)

    replace_forward(network, cast)
    return {"level": amp.level} if amp.dtype == "float16" else None
