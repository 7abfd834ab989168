"""Muon: orthogonalised momentum for convolutions, momentum for the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnet_fit.config.registry import part
from resnet_fit.config.settings import Below1, Positive
from resnet_fit.training.optimizers.momentum import Velocity

if TYPE_CHECKING:
    import paddle
    from paddle import nn


@part("optimizer", "muon")
class Muon(Velocity):
    """Orthogonalised momentum for convolutions, momentum for the rest (Jordan et al. 2024).

    Args:
        learning_rate: the full rate of convolutions, of which the schedule takes a share: the angle
            in radians by which a step turns their weights, which keep their norm.
        weight_decay: of the parameters that are not convolutions; norms and biases have it only by
            ``decay_norms_and_biases``.
        head_and_norm_lr: the learning rate of all parameters that are not convolutions.
    """

    head_and_norm_lr: Positive
    momentum: Below1 = 0.95
    nesterov: bool = True

    def at_rate(self, learning_rate: float) -> dict[str, float]:
        scale = learning_rate / self.learning_rate
        return {"learning_rate": learning_rate, "head_and_norm_lr": scale * self.head_and_norm_lr}

    def build(
        self, network: nn.Layer, rate: float | paddle.optimizer.lr.LRScheduler
    ) -> paddle.optimizer.Optimizer:
        from resnet_fit.training.orthogonal import OrthogonalMomentum, is_convolution

        self.set_regularizers(network)
        arguments = self.arguments(network, rate)
        for parameter in network.parameters():
            if not is_convolution(parameter):
                factor = self.head_and_norm_lr / self.learning_rate
                parameter.optimize_attr["learning_rate"] *= factor
        return OrthogonalMomentum(momentum=self.momentum, use_nesterov=self.nesterov, **arguments)
