"""Base classes for your own parts, and `part`, which registers them.

    from resnet_fit.parts import Network, part

    @part("network", "mine")
    class Mine(Network):
        width: int = 16

        def build(self, classes, channels):
            return MyLayer(channels, self.width, classes)

Import the module that defines them, then call `resnet_fit.cli.main` or `resnet_fit.fit`. Configs
use them by name, like the built-in parts. docs/extending.md has an example of each kind.
"""

from resnet_fit.callbacks.optional.callback import CallbackPart, Context
from resnet_fit.config.problems import Problem
from resnet_fit.config.registry import KINDS, part, parts
from resnet_fit.config.settings import (
    Below1,
    Between0And1,
    NonNegative,
    NonNegativeInt,
    Positive,
    PositiveInt,
    Share,
)
from resnet_fit.data.augment.operation import Operation
from resnet_fit.data.dataset import ArrayDataset, FileDataset
from resnet_fit.data.datasets.data import Data
from resnet_fit.data.transforms import Geometric
from resnet_fit.networks.families.network import Network
from resnet_fit.training.losses.loss import Loss
from resnet_fit.training.optimizers.optimizer import Optimizer
from resnet_fit.training.schedules.schedule import Schedule

__all__ = [
    "KINDS",
    "ArrayDataset",
    "Below1",
    "Between0And1",
    "CallbackPart",
    "Context",
    "Data",
    "FileDataset",
    "Geometric",
    "Loss",
    "Network",
    "NonNegative",
    "NonNegativeInt",
    "Operation",
    "Optimizer",
    "Positive",
    "PositiveInt",
    "Problem",
    "Schedule",
    "Share",
    "part",
    "parts",
]
