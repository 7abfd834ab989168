"""RMSProp: steps divided by a running average of the gradient's size."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from resnet_fit.config.registry import part
from resnet_fit.config.settings import Below1, Positive
from resnet_fit.training.optimizers.optimizer import Optimizer

if TYPE_CHECKING:
    import paddle
    from paddle import nn


@part("optimizer", "rmsprop")
class RMSProp(Optimizer):
    """Gradients divided by the root of their running mean square (Hinton 2012, lecture 6e).

    Args:
        rho: what of the mean square stays from step to step.
        epsilon: added to the mean square, below the root.
        momentum: the share of the velocity that stays from step to step.
        centered: whether the mean square is taken around the gradients' running mean.
    """

    # Mean square, mean and velocity: Paddle keeps all three in any case.
    slots: ClassVar[int] = 3

    rho: Below1 = 0.9
    epsilon: Positive = 1e-8
    momentum: Below1 = 0.0
    centered: bool = False

    def build(
        self, network: nn.Layer, rate: float | paddle.optimizer.lr.LRScheduler
    ) -> paddle.optimizer.Optimizer:
        import paddle

        self.set_regularizers(network)
        return paddle.optimizer.RMSProp(
            rho=self.rho,
            epsilon=self.epsilon,
            momentum=self.momentum,
            centered=self.centered,
            **self.arguments(network, rate),
        )
