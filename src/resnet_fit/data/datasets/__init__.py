"""The data sets of a config, one file each; every file of this folder is imported."""

from resnet_fit.config.registry import import_all
from resnet_fit.data.datasets.data import Data

__all__ = ["Data"]

import_all(__name__, __path__)
