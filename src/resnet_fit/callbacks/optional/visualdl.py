"""A training in VisualDL's web page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resnet_fit.callbacks.optional.callback import CallbackPart, Context
from resnet_fit.config.registry import part
from resnet_fit.config.settings import PositiveInt

if TYPE_CHECKING:
    import paddle


@part("callback", "visualdl")
class VisualDL(CallbackPart):
    """Writes what ``resnet-fit view`` shows: curves, images, histograms, settings.

    Args:
        every_steps: steps between two points of the training's curves.
        images: whether batches are shown as the network sees them, of ten epochs at most.
        histograms: whether weights and gradients are shown, after each epoch.
        graph: whether the network is drawn, which takes some seconds at the training's start.
    """

    every_steps: PositiveInt = 20
    images: bool = True
    histograms: bool = True
    graph: bool = False

    def build(self, context: Context) -> paddle.callbacks.Callback:
        from resnet_fit.callbacks.visualdl import VisualDL

        config = context.config.model_dump()
        return VisualDL(
            context.folder / "visualdl",
            self.every_steps,
            config,
            hyperparameters(config),
            context.clock,
            images=self.images,
            normalisation=context.normalisation,
            histograms=self.histograms,
            graph=context.image_shape if self.graph else None,
        )


def hyperparameters(config: dict[str, Any]) -> dict[str, Any]:
    """The settings to compare runs by, as one level of ``section/key``."""
    sections = ("optimizer", "schedule", "training", "model", "data", "loss")
    return {
        f"{section}/{key}": value
        for section in sections
        for key, value in config[section].items()
        if isinstance(value, (int, float, str))
    }
