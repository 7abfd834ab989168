"""Averaged weights, evaluated and saved beside the weights themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnet_fit.callbacks.optional.callback import CallbackPart, Context
from resnet_fit.config.registry import part
from resnet_fit.config.settings import Between0And1

if TYPE_CHECKING:
    import paddle


@part("callback", "weight_average")
class WeightAverage(CallbackPart):
    """Averages the weights over the last steps, as ``ema_top1`` etc. (Polyak and Juditsky 1992).

    Args:
        decay: what of the average stays at each step; 1 / (1 - decay) is about how many steps are
            averaged over.
        warm_up: whether the decay grows in the first steps.
    """

    decay: Between0And1 = 0.999
    warm_up: bool = True

    def build(self, context: Context) -> paddle.callbacks.Callback:
        from resnet_fit.callbacks.weight_average import WeightAverage

        return WeightAverage(context.evaluation, self.decay, self.warm_up, context.clock)
