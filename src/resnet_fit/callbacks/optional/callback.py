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
    """

    config: Config
    folder: Path
    clock: Clock
    evaluation: Iterable[Any]


class CallbackPart(Part):
    """A callback of the training."""

    def build(self, context: Context) -> paddle.callbacks.Callback:
        """The callback. With ``state_dict`` and ``set_state_dict`` it is saved and restored."""
        raise NotImplementedError
