"""The networks: residual, plain and dense, their weights, their size.

The names are loaded when first used, so that the settings of a network answer without Paddle.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnet_fit.lazy import exports

if TYPE_CHECKING:
    from resnet_fit.networks.blocks import Layers
    from resnet_fit.networks.complexity import count_macs, count_parameters
    from resnet_fit.networks.dense import DenseNet, densenet
    from resnet_fit.networks.layer_names import freeze
    from resnet_fit.networks.residual import ResNet, plain, resnet
    from resnet_fit.networks.weights import LoadReport, load_weights, read_weights
    from resnet_fit.networks.whitening import whiten

# No module bears the name of a function: the package can only show one of them under it.
__all__ = [
    "DenseNet",
    "Layers",
    "LoadReport",
    "ResNet",
    "count_macs",
    "count_parameters",
    "densenet",
    "freeze",
    "load_weights",
    "plain",
    "read_weights",
    "resnet",
    "whiten",
]


__getattr__ = exports(
    __name__,
    {
        "blocks": ("Layers",),
        "complexity": ("count_macs", "count_parameters"),
        "dense": ("DenseNet", "densenet"),
        "layer_names": ("freeze",),
        "residual": ("ResNet", "plain", "resnet"),
        "weights": ("LoadReport", "load_weights", "read_weights"),
        "whitening": ("whiten",),
    },
)
