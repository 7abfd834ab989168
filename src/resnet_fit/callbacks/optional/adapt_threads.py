"""Fewer threads while other processes need the cores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnet_fit.callbacks.optional.callback import CallbackPart, Context
from resnet_fit.config.registry import part
from resnet_fit.config.settings import Positive

if TYPE_CHECKING:
    import paddle


@part("callback", "adapt_threads")
class AdaptThreads(CallbackPart):
    """Lets a CPU compute with fewer threads while other processes need its cores and that is
    faster. Results then depend on what else runs, by rounding.

    Args:
        every: seconds over which the work of other processes is measured.
    """

    every: Positive = 1.0

    def build(self, context: Context) -> paddle.callbacks.Callback:
        from resnet_fit.callbacks.adapt_threads import AdaptThreads

        return AdaptThreads(self.every)
