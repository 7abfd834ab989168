"""Callbacks for `paddle.Model.fit`, each usable alone; they are loaded when first used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnet_fit.lazy import exports

if TYPE_CHECKING:
    from resnet_fit.callbacks.adapt_threads import AdaptThreads
    from resnet_fit.callbacks.checkpoint import Checkpoint
    from resnet_fit.callbacks.clock import Clock
    from resnet_fit.callbacks.early_stopping import EarlyStopping
    from resnet_fit.callbacks.flip_average import FlipAverage
    from resnet_fit.callbacks.history import History
    from resnet_fit.callbacks.interruption import Interruption
    from resnet_fit.callbacks.nan_guard import NaNGuard
    from resnet_fit.callbacks.nan_skip import NaNSkip
    from resnet_fit.callbacks.progress import ProgressBar
    from resnet_fit.callbacks.relay import Relay
    from resnet_fit.callbacks.slow_data import SlowData
    from resnet_fit.callbacks.step_seed import StepSeed
    from resnet_fit.callbacks.visualdl import VisualDL
    from resnet_fit.callbacks.weight_average import WeightAverage

__all__ = [
    "AdaptThreads",
    "Checkpoint",
    "Clock",
    "EarlyStopping",
    "FlipAverage",
    "History",
    "Interruption",
    "NaNGuard",
    "NaNSkip",
    "ProgressBar",
    "Relay",
    "SlowData",
    "StepSeed",
    "VisualDL",
    "WeightAverage",
]

__getattr__ = exports(
    __name__,
    {
        "adapt_threads": ("AdaptThreads",),
        "checkpoint": ("Checkpoint",),
        "clock": ("Clock",),
        "early_stopping": ("EarlyStopping",),
        "flip_average": ("FlipAverage",),
        "history": ("History",),
        "interruption": ("Interruption",),
        "nan_guard": ("NaNGuard",),
        "nan_skip": ("NaNSkip",),
        "progress": ("ProgressBar",),
        "relay": ("Relay",),
        "slow_data": ("SlowData",),
        "step_seed": ("StepSeed",),
        "visualdl": ("VisualDL",),
        "weight_average": ("WeightAverage",),
    },
)
