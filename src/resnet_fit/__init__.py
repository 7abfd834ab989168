"""Train ResNets on PaddlePaddle's high-level API, from one YAML file or from your own code.

The names below are loaded when first used: importing ``resnet_fit`` does not import Paddle.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnet_fit.lazy import exports

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
    from resnet_fit.export.exporting import export_run
    from resnet_fit.networks import densenet, freeze, load_weights, plain, resnet
    from resnet_fit.runs.config import Config, dump_config, load_config, parse_config
    from resnet_fit.runs.fit import fit, resume
    from resnet_fit.runs.open import open_run
    from resnet_fit.training.metrics import MeanLoss, TopK, classification_metrics
    from resnet_fit.training.objectives import BinaryCrossEntropy, CrossEntropy

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
    "export_run",
    "fit",
    "freeze",
    "load_config",
    "load_weights",
    "open_run",
    "parse_config",
    "plain",
    "resnet",
    "resume",
]


__getattr__ = exports(
    __name__,
    {
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
        "runs.config": ("Config", "dump_config", "load_config", "parse_config"),
        "errors": ("RunFailed", "UserError"),
        "export.exporting": ("export_run",),
        "networks": ("densenet", "freeze", "load_weights", "plain", "resnet"),
        "training.objectives": ("BinaryCrossEntropy", "CrossEntropy"),
        "training.metrics": ("MeanLoss", "TopK", "classification_metrics"),
        "runs.fit": ("fit", "resume"),
        "runs.open": ("open_run",),
    },
)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
