"""Curves for VisualDL's web page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from resnet_fit.callbacks.optional.callback import CallbackPart, Context
from resnet_fit.config.document import dump
from resnet_fit.config.registry import part
from resnet_fit.config.settings import PositiveInt

if TYPE_CHECKING:
    import paddle


@part("callback", "visualdl")
class VisualDL(CallbackPart):
    """Writes the curves that ``resnet-fit view`` shows.

    Args:
        every_steps: steps between two points of the training's curves.
    """

    every_steps: PositiveInt = 20

    def build(self, context: Context) -> paddle.callbacks.Callback:
        from resnet_fit.callbacks.visualdl import VisualDL

        config = context.config.model_dump()
        return VisualDL(
            context.folder / "visualdl",
            self.every_steps,
            dump(config),
            hyperparameters(config),
            context.clock,
        )


def hyperparameters(config: dict[str, Any]) -> dict[str, Any]:
    """The settings to compare runs by, as one level of ``section.key``."""
    sections = ("model", "data", "loss", "optimizer", "schedule", "training")
    return {
        f"{section}.{key}": value
        for section in sections
        for key, value in config[section].items()
        if isinstance(value, (int, float, str))
    }
