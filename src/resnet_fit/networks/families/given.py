"""A network that a program hands over."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from resnet_fit.config.problems import Problem
from resnet_fit.config.registry import part
from resnet_fit.errors import UserError
from resnet_fit.networks.families.network import Network

if TYPE_CHECKING:
    from paddle import nn

    from resnet_fit.runs.config import Config


@part("network", "given")
class Given(Network):
    """The network that a program hands to `fit`."""

    def problems(self, config: Config | None) -> Iterator[Problem]:
        for problem in super().problems(config):
            if problem.path != ("freeze",):  # it comes with weights of its own
                yield problem

    def build(self, classes: int, channels: int) -> nn.Layer:
        raise UserError(
            "model: {name: given} stands for a network that a program hands over; call "
            "fit(config, network=...) or resume(folder, network=...) in that program"
        )
