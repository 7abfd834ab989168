"""A loss that is no number ends a run, since nothing it learns afterwards is worth anything."""

from __future__ import annotations

import math
from typing import Any

from resnet_fit.callbacks import logs as read
from resnet_fit.callbacks.clock import Clocked
from resnet_fit.errors import RunFailed


class NaNGuard(Clocked):
    """Stops a training whose loss is NaN or infinite, before anything of it is saved.

    Raises:
        RunFailed: naming epoch, step and learning rate.
    """

    def on_train_batch_end(self, step: int, logs: dict[str, Any] | None = None) -> None:
        super().on_train_batch_end(step, logs)
        loss = read.metrics(self, logs).get("loss", 0.0)
        if not math.isfinite(loss):
            raise RunFailed(
                f"the loss became {loss} in epoch {self.clock.epoch} at step {self.clock.step}, at "
                f"a learning rate of {self.rate:g}; the last checkpoint is from before that. Try "
                "a lower optimizer.learning_rate, a warm-up, or training.clip_norm"
            )
