"""Gradient descent with momentum."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from resnet_fit.config.problems import Problem
from resnet_fit.config.registry import part
from resnet_fit.config.settings import AutoSwitch, Below1
from resnet_fit.training.optimizers.optimizer import Optimizer, fused_where_all_have_gradients

if TYPE_CHECKING:
    import paddle
    from paddle import nn

    from resnet_fit.runs.config import Config


class Velocity(Optimizer):
    """An optimizer that keeps a velocity of each parameter.

    Args:
        momentum: the share of the velocity that stays from step to step.
        nesterov: whether the gradient is taken ahead of the velocity's step.
    """

    slots: ClassVar[int] = 1

    momentum: Below1
    nesterov: bool

    def no_effect(self, config: Config) -> Iterator[Problem]:
        yield from super().no_effect(config)
        if self.nesterov and not self.momentum:
            yield Problem(("nesterov",), "without momentum")


@part("optimizer", "momentum")
class Momentum(Velocity):
    """Gradient descent with momentum, heavy-ball or Nesterov's.

    Args:
        fused: whether the steps of all parameters are one operation, which a GPU starts once;
            ``auto`` on a GPU.
    """

    momentum: Below1 = 0.9
    nesterov: bool = False
    fused: AutoSwitch = "auto"

    def build(
        self, network: nn.Layer, rate: float | paddle.optimizer.lr.LRScheduler
    ) -> paddle.optimizer.Optimizer:
        import paddle

        self.set_regularizers(network)
        optimizer = paddle.optimizer.Momentum(
            momentum=self.momentum,
            use_nesterov=self.nesterov,
            use_multi_tensor=self.fused is True,
            **self.arguments(network, rate),
        )
        return fused_where_all_have_gradients(optimizer)
