"""The losses of a config, one file each; every file of this folder is imported."""

from resnet_fit.config.registry import import_all
from resnet_fit.training.losses.loss import Loss

__all__ = ["Loss"]

import_all(__name__, __path__)
