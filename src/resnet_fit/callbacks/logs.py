"""Reading what `paddle.Model` hands to callbacks."""

from __future__ import annotations

from typing import Any

import numpy as np
import paddle


def metrics(callback: paddle.callbacks.Callback, logs: dict[str, Any] | None) -> dict[str, float]:
    """The metrics of the model by name, as plain numbers.

    Paddle hands out one dictionary for everything and never empties it, so only the names that
    the model declares are taken.
    """
    names = callback.params.get("metrics", []) if callback.params else []
    return {n: float(np.ravel(logs[n])[0]) for n in names if logs and n in logs}


def learning_rate(callback: paddle.callbacks.Callback) -> float:
    """The rate that the next step will use."""
    return float(callback.model._optimizer.get_lr())
