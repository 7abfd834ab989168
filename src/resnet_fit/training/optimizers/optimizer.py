"""What every optimizer has: a rate, weight decay where it belongs, rates by layer, clipping."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from resnet_fit.config.problems import Problem
from resnet_fit.config.settings import NonNegative, Part, Positive, PositiveInt
from resnet_fit.networks.layer_names import BACKBONE, check_layers, head_of, is_within

if TYPE_CHECKING:
    import paddle
    from paddle import nn

    from resnet_fit.runs.config import Config


class Optimizer(Part):
    """An optimizer over the trainable parameters of a network.

    Args:
        learning_rate: the full rate, of which the schedule takes a share at each step.
        reference_batch_size: the batch size that the rate was found for; the rate used is then
            proportional to the images of a step (Goyal et al. 2017).
        weight_decay: of the weights; norms and biases have it only by ``decay_norms_and_biases``.
        decay_norms_and_biases: whether norms and biases decay as well.
        lr_factors: factors of the learning rate for layers and all within them, such as
            ``{layer4: 0.5}``; ``backbone`` is every layer but the last.
        clip_norm: bound of the gradients' global norm.
    """

    # Numbers that the optimizer keeps for each weight, for estimates of memory and disk space.
    slots: ClassVar[int] = 2

    learning_rate: Positive
    reference_batch_size: PositiveInt | None = None
    weight_decay: NonNegative = 0.0
    decay_norms_and_biases: bool = False
    lr_factors: dict[str, Positive] = Field(default_factory=dict)
    clip_norm: Positive | None = None

    def no_effect(self, config: Config) -> Iterator[Problem]:
        for layer, factor in self.lr_factors.items():
            if factor == 1:
                yield Problem(("lr_factors", layer), "a factor of 1")
        if self.decay_norms_and_biases and not self.weight_decay:
            yield Problem(("decay_norms_and_biases",), "without optimizer.weight_decay")

    def full_rate(self, images: int) -> float:
        """The learning rate for so many images a step."""
        return self.learning_rate * images / (self.reference_batch_size or images)

    def at_rate(self, learning_rate: float) -> dict[str, float]:
        """The settings of this optimizer at another rate, all groups of parameters scaled alike."""
        return {"learning_rate": learning_rate}

    def build(
        self, network: nn.Layer, rate: float | paddle.optimizer.lr.LRScheduler
    ) -> paddle.optimizer.Optimizer:
        """A `paddle.optimizer.Optimizer` over all trainable parameters of a network.

        Args:
            network: its parameters get their learning-rate factor and weight decay here.
            rate: the learning rate, or a schedule of it.

        Raises:
            UserError: ``lr_factors`` names what is no layer of the network, or the backbone of one
                whose last layer cannot be told.
        """
        raise NotImplementedError

    def arguments(
        self, network: nn.Layer, rate: float | paddle.optimizer.lr.LRScheduler
    ) -> dict[str, Any]:
        """What all of Paddle's optimizers take; sets the learning-rate factors."""
        import paddle

        set_lr_factors(network, self.lr_factors)
        clip = paddle.nn.ClipGradByGlobalNorm(self.clip_norm) if self.clip_norm else None
        return {"learning_rate": rate, "parameters": trainable(network), "grad_clip": clip}

    def decays(self, parameter: paddle.Tensor) -> bool:
        """Whether weight decay is for this parameter."""
        return self.decay_norms_and_biases or len(parameter.shape) > 1

    def decayed(self, network: nn.Layer) -> set[str]:
        """The names of the trainable parameters that weight decay is for."""
        return {p.name for p in trainable(network) if self.decays(p)}

    def set_regularizers(self, network: nn.Layer) -> None:
        """Decay by a term of each parameter's gradient, which momentum then carries on.

        One that belongs to the optimizer would reach norms and biases as well.
        """
        import paddle

        for parameter in trainable(network):
            decay = self.weight_decay if self.decays(parameter) else 0.0
            parameter.regularizer = paddle.regularizer.L2Decay(decay) if decay else None


def trainable(network: nn.Layer) -> list[paddle.Tensor]:
    return [p for p in network.parameters() if not p.stop_gradient]


def set_lr_factors(network: nn.Layer, factors: dict[str, float]) -> None:
    """Let parameters learn at a multiple of the optimizer's rate; the longest name counts."""
    check_layers(network, factors, "optimizer.lr_factors")
    head = head_of(network) if BACKBONE in factors else ""
    for name, parameter in network.named_parameters():
        layers = [layer for layer in factors if is_within(name, layer, head)]
        longest = max(layers, key=lambda layer: (layer != BACKBONE, len(layer)), default=None)
        # Paddle's own place for it.
        parameter.optimize_attr["learning_rate"] = factors[longest] if longest else 1.0


def fused_where_all_have_gradients(optimizer: Any) -> Any:
    """The optimizer; where it is fused, it now steps singly when a parameter has no gradient.

    Paddle's fused operations pair parameters and gradients by their places, and would give each
    parameter after a missing gradient that of another. The state is the same in both ways.
    """
    if not optimizer._use_multi_tensor:
        return optimizer
    update = optimizer._create_optimization_pass

    def step(pairs: list[Any], param_group_idx: int = 0) -> Any:
        optimizer._use_multi_tensor = len(pairs) == len(optimizer._parameter_list)
        return update(pairs, param_group_idx)

    optimizer._create_optimization_pass = step
    return optimizer
