"""LAMB, for large batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnet_fit.config.registry import part
from resnet_fit.config.settings import Positive
from resnet_fit.training.optimizers.adam import Moments

if TYPE_CHECKING:
    import paddle
    from paddle import nn


@part("optimizer", "lamb")
class Lamb(Moments):
    """LAMB: Adam's step scaled by a layer-wise trust ratio, for large batches (You et al. 2019).

    Parameters without weight decay have no trust ratio, as norms and biases by default.

    Args:
        weight_decay: of the weights; above 0, since Paddle computes the trust ratio of
            decayed parameters only.
        epsilon: added to the divisor, which keeps it from zero.
    """

    weight_decay: Positive
    epsilon: Positive = 1e-6

    def build(
        self, network: nn.Layer, rate: float | paddle.optimizer.lr.LRScheduler
    ) -> paddle.optimizer.Optimizer:
        import paddle

        decayed = self.decayed(network)
        return paddle.optimizer.Lamb(
            lamb_weight_decay=self.weight_decay,
            exclude_from_weight_decay_fn=lambda parameter: parameter.name not in decayed,
            **self.arguments(network, rate),
        )
