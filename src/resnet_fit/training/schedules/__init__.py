"""The learning-rate schedules of a config; every file of this folder is imported."""

from resnet_fit.config.registry import import_all
from resnet_fit.training.schedules.schedule import Schedule

__all__ = ["Schedule"]

import_all(__name__, __path__)
