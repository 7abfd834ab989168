"""The optimizers of a config, one file each; every file of this folder is imported."""

from resnet_fit.config.registry import import_all
from resnet_fit.training.optimizers.optimizer import Optimizer

__all__ = ["Optimizer"]

import_all(__name__, __path__)
