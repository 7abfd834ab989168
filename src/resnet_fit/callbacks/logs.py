"""Reading what `paddle.Model` hands to callbacks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import paddle

from resnet_fit.errors import UserError, suggest


def metrics(callback: paddle.callbacks.Callback, logs: dict[str, Any] | None) -> dict[str, float]:
    """The metrics of the model by name, and those of evaluations beside it, as plain numbers.

    Paddle hands out one dictionary for everything and never empties it, so only the names that
    the model declares are taken.
    """
    names = callback.params.get("metrics", []) if callback.params else []
    return _numbers(names, logs)


def own_metrics(
    callback: paddle.callbacks.Callback, logs: dict[str, Any] | None
) -> dict[str, float]:
    """The metrics of the model alone, also in an evaluation of which only a `Relay` has told."""
    return _numbers(callback.model._metrics_name(), logs)


def _numbers(names: list[str], logs: dict[str, Any] | None) -> dict[str, float]:
    return as_numbers({n: logs[n] for n in names if n in logs}) if logs else {}


def as_numbers(metrics: dict[str, Any]) -> dict[str, float]:
    """Metrics as Paddle has them, numbers or arrays of one, as plain numbers."""
    return {name: float(np.ravel(value)[0]) for name, value in metrics.items()}


def require_metric(callback: paddle.callbacks.Callback, key: str, monitor: str) -> None:
    """Raise a UserError if the model has no metric of this name."""
    names = callback.params["metrics"]
    if monitor not in names:
        raise UserError(
            f"{key}: there is no metric '{monitor}'.{suggest(monitor, names)} This model has: "
            f"{', '.join(dict.fromkeys(names))}"
        )


def of_last_batch(
    callback: paddle.callbacks.Callback, values: dict[str, float]
) -> dict[str, float]:
    """Those of ``values`` that are not means since the epoch's begin.

    That is Paddle's own loss, unless a metric such as `MeanLoss` has taken over its name.
    """
    means = {n for metric in callback.model._metrics for n in np.atleast_1d(metric.name())}
    return {name: value for name, value in values.items() if name not in means}


def improves(value: float, best: float | None, mode: str, by: float = 0.0) -> bool:
    """Whether a value beats the best one by more than ``by``; NaN and infinity never count."""
    if best is None or not math.isfinite(value):
        return math.isfinite(value)
    return (value - best if mode == "max" else best - value) > by


def has_stepped(callback: paddle.callbacks.Callback) -> bool:
    """Whether the optimizer's last step moved the weights.

    It does not where `NaNSkip` left it out, or where float16's scaled gradients were too large.
    """
    optimizer = callback.model._optimizer
    overflow = optimizer._get_auxiliary_var("found_inf")
    left_out = getattr(optimizer, "left_out", False)
    return not (left_out or (overflow is not None and bool(overflow)))


def learning_rate(callback: paddle.callbacks.Callback) -> float:
    """The rate that the next step will use."""
    return float(callback.model._optimizer.get_lr())
