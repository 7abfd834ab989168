"""Evaluating the mean of each image and its mirror image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnet_fit.callbacks.optional.callback import CallbackPart, Context
from resnet_fit.config.registry import part

if TYPE_CHECKING:
    import paddle


@part("callback", "flip_average")
class FlipAverage(CallbackPart):
    """Also evaluates the mean of each image and its mirror image, as ``flip_top1`` etc."""

    def build(self, context: Context) -> paddle.callbacks.Callback:
        from resnet_fit.callbacks.flip_average import FlipAverage

        return FlipAverage(context.evaluation, context.clock)
