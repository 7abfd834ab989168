"""Stochastic gradient descent."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from resnet_fit.config.registry import part
from resnet_fit.training.optimizers.optimizer import Optimizer

if TYPE_CHECKING:
    import paddle
    from paddle import nn


@part("optimizer", "sgd")
class SGD(Optimizer):
    """Plain gradient descent, without momentum."""

    slots: ClassVar[int] = 0

    def build(
        self, network: nn.Layer, rate: float | paddle.optimizer.lr.LRScheduler
    ) -> paddle.optimizer.Optimizer:
        import paddle

        self.set_regularizers(network)
        return paddle.optimizer.SGD(**self.arguments(network, rate))
