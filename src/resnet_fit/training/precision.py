"""Half precision through `paddle.Model`, which by itself knows float16 only.

Weights stay in float32. What concerns GPUs follows Paddle's documentation; it was not run on one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import paddle
from paddle import Tensor, nn

from resnet_fit.backends import replace_forward, use_backend
from resnet_fit.errors import UserError
from resnet_fit.machine import has_bfloat16


class LossScaler(paddle.amp.GradScaler):
    """Paddle's scaler of float16 losses, which lowers the scale without a message.

    Paddle prints one, and for that calls ``float`` on a tensor of one axis: with Paddle 3.3 a
    TypeError from NumPy 2.4 on (``_update`` in ``paddle/amp/grad_scaler.py``).
    """

    _scale: Any
    _decr_count: int
    _decr_every_n_nan_or_inf: int

    def _update(self) -> None:
        if not self._enable:
            return
        most = self._decr_every_n_nan_or_inf
        self._decr_every_n_nan_or_inf = 0  # no count of overflows: Paddle counts, and does no more
        super()._update()
        self._decr_every_n_nan_or_inf = most
        if self._decr_count >= most:
            self._scale = self._scale * self._decr_ratio
            self._decr_count = 0


def check_precision(precision: str, device: str, backend: str) -> None:
    """Raise UserError where a device cannot compute in this precision."""
    if precision == "float32":
        return
    if device == "cpu":
        _check_cpu(precision, backend)
    elif precision == "bfloat16" and not paddle.amp.is_bfloat16_supported():
        raise UserError("training.precision: this GPU has no bfloat16; use float16")


def _check_cpu(precision: str, backend: str) -> None:
    if precision != "bfloat16":
        raise UserError(
            f"training.precision: received {precision}, but a CPU has bfloat16 or float32"
        )
    if backend != "onednn":
        raise UserError(
            f"training.precision: received {precision}, but on a CPU Paddle itself computes in "
            "float32 whatever is asked for; use float32, or training.backend: onednn"
        )
    if not has_bfloat16():
        raise UserError("training.precision: this processor has no bfloat16; use float32")


def use_precision(precision: str, network: nn.Layer, backend: str) -> dict[str, Any] | None:
    """Let a network compute in a precision, and return ``amp_configs`` for `Model.prepare`.

    `paddle.Model` casts neither evaluation nor to bfloat16, so the network's own ``forward`` does
    both. Float16 also needs the loss scaled, which `paddle.Model` does when it is given a level.
    """
    if backend == "onednn":
        use_backend(network, backend, precision)
        return None
    use_backend(network, backend)
    if precision == "float32":
        return None

    def cast(forward: Callable[[Tensor], Any], images: Tensor) -> Any:
        with paddle.amp.auto_cast(level="O1", dtype=precision):
            return forward(images)

    replace_forward(network, cast)
    return {"level": "O1"} if precision == "float16" else None
