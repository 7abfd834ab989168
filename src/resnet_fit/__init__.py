"""Train ResNets on PaddlePaddle's high-level API, from one YAML file or from your own code.

The names below are loaded when first used: importing ``resnet_fit`` does not import Paddle.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from resnet_fit.callbacks import (
        Checkpoint,
        EarlyStopping,
        FlipAverage,
        History,
        ProgressBar,
        StepSeed,
        VisualDL,
        WeightAverage,
    )
    from resnet_fit.errors import RunFailed, UserError
    from resnet_fit.networks import densenet, freeze, load_weights, plain, resnet
    from resnet_fit.runs.config import Config, dump_config, load_config, parse_config
    from resnet_fit.runs.fit import fit, resume
    from resnet_fit.training.metrics import MeanLoss, TopK, classification_metrics
    from resnet_fit.training.objectives import BinaryCrossEntropy, CrossEntropy

_HOMES = {
    "callbacks": (
        "Checkpoint",
        "EarlyStopping",
        "FlipAverage",
        "History",
        "ProgressBar",
        "StepSeed",
        "VisualDL",
        "WeightAverage",
    ),
    "config": ("Config", "dump_config", "load_config", "parse_config"),
    "errors": ("RunFailed", "UserError"),
    "networks": ("densenet", "freeze", "load_weights", "plain", "resnet"),
    "training.losses": ("BinaryCrossEntropy", "CrossEntropy"),
    "training.metrics": ("MeanLoss", "TopK", "classification_metrics"),
    "training.run": ("fit", "resume"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "BinaryCrossEntropy",
    "Checkpoint",
    "Config",
    "CrossEntropy",
    "EarlyStopping",
    "FlipAverage",
    "History",
    "MeanLoss",
    "ProgressBar",
    "RunFailed",
    "StepSeed",
    "TopK",
    "UserError",
    "VisualDL",
    "WeightAverage",
    "classification_metrics",
    "densenet",
    "dump_config",
    "fit",
    "freeze",
    "load_config",
    "load_weights",
    "parse_config",
    "plain",
    "resnet",
    "resume",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'resnet_fit' has no attribute '{name}'")
    return getattr(importlib.import_module(f"resnet_fit.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
