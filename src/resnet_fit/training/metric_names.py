"""What the name of a metric says of its values; answers without Paddle and pydantic."""

from __future__ import annotations


def better(metric: str) -> str:
    """Which direction of a metric is better, ``min`` for a loss and ``max`` for all others."""
    return "min" if metric.endswith("loss") else "max"


def is_share(metric: str) -> bool:
    """Whether a metric, such as ``eval.ema_top1``, is a share, which is shown in percent."""
    return metric.rpartition(".")[2].rpartition("_")[2].startswith("top")
