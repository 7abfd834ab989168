"""The networks of a config, one file for each family; every file of this folder is imported."""

from resnet_fit.config.registry import import_all
from resnet_fit.networks.families.network import Network

__all__ = ["Network"]

import_all(__name__, __path__)
