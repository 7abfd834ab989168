"""Whether tensors hold nothing but finite numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import paddle
from paddle import Tensor

from resnet_fit.backends.covered import FLOAT32


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """False if a value is NaN or infinite; very rarely also if all are finite, but huge.

    One pass over each tensor, without a copy: a sum is not finite if any of its terms is not.
    """
    with paddle.no_grad():
        sums = [_as_float32(t).sum() for t in tensors if _is_float(t)]
        return not sums or bool(paddle.isfinite(paddle.add_n(sums)))


def _is_float(tensor: Tensor) -> bool:
    return tensor.dtype in FLOAT32 or "float" in str(tensor.dtype)


def _as_float32(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype in FLOAT32 else tensor.astype("float32")


def not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor with a value that is NaN or infinite, or None."""
    if all_finite(tensors.values()):
        return None
    return next((n for n, t in tensors.items() if not bool(paddle.isfinite(t).all())), None)
