"""Adam, with weight decay in the gradient or apart from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from resnet_fit.config.registry import part
from resnet_fit.config.settings import AutoSwitch, Below1, Positive
from resnet_fit.training.optimizers.optimizer import Optimizer, fused_where_all_have_gradients

if TYPE_CHECKING:
    import paddle
    from paddle import nn


class Moments(Optimizer):
    """An optimizer that keeps averages of each gradient and of its square.

    Args:
        beta1: decay of the average of gradients.
        beta2: decay of the average of their squares.
        epsilon: added to the divisor, which keeps it from zero.
    """

    slots: ClassVar[int] = 2

    beta1: Below1 = 0.9
    beta2: Below1 = 0.999
    epsilon: Positive = 1e-8

    def arguments(
        self, network: nn.Layer, rate: float | paddle.optimizer.lr.LRScheduler
    ) -> dict[str, Any]:
        averages = {"beta1": self.beta1, "beta2": self.beta2, "epsilon": self.epsilon}
        return super().arguments(network, rate) | averages


@part("optimizer", "adam")
class Adam(Moments):
    """Adam (Kingma and Ba 2014); weight decay is part of the gradient.

    Args:
        fused: whether the steps of all parameters are one operation, which a GPU starts once;
            ``auto`` on a GPU.
    """

    fused: AutoSwitch = "auto"

    def build(
        self, network: nn.Layer, rate: float | paddle.optimizer.lr.LRScheduler
    ) -> paddle.optimizer.Optimizer:
        import paddle

        self.set_regularizers(network)
        optimizer = paddle.optimizer.Adam(
            use_multi_tensor=self.fused is True, **self.arguments(network, rate)
        )
        return fused_where_all_have_gradients(optimizer)


@part("optimizer", "adamw")
class AdamW(Moments):
    """Adam with weight decay applied to the weights themselves (Loshchilov and Hutter 2017)."""

    def build(
        self, network: nn.Layer, rate: float | paddle.optimizer.lr.LRScheduler
    ) -> paddle.optimizer.Optimizer:
        import paddle

        return paddle.optimizer.AdamW(
            weight_decay=self.weight_decay,
            apply_decay_param_fun=self.decayed(network).__contains__,
            **self.arguments(network, rate),
        )
