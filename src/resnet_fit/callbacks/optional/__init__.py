"""The callbacks that a config turns on, one file each; every file of this folder is imported."""

from resnet_fit.callbacks.optional.callback import CallbackPart, Context
from resnet_fit.config.registry import import_all

__all__ = ["CallbackPart", "Context"]

import_all(__name__, __path__)
