"""What every callback of a config has: settings, and what it may use of a run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnet_fit.config.settings import Part

if TYPE_CHECKING:
    import paddle

    from resnet_fit.callbacks.clock import Clock
    from resnet_fit.runs.config import Config


@dataclass(frozen=True)
class Context:
    """What a callback may use of its run.

    Attributes:
        config: the whole experiment.
        folder: the run's folder.
        clock: counts the run's epochs and steps; to be shared.
        evaluation: the batches that epochs are judged by.
        image_shape: ``(C, H, W)`` of an image in evaluation.
        normalisation: mean and standard deviation by which the training's images are normalised,
            in units of 0..1; None where they are not.
    """

    config: Config
    folder: Path
    clock: Clock
    evaluation: Iterable[Any]
    image_shape: tuple[int, int, int]
    normalisation: tuple[Any, Any] | None


class CallbackPart(Part):
    """A callback of the training."""

    def build(self, context: Context) -> paddle.callbacks.Callback:
        """The callback. With ``state_dict`` and ``set_state_dict`` it is saved and restored."""
        raise NotImplementedError
