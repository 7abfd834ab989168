"""A loss that is no number ends a run, since nothing it learns afterwards is worth anything."""

from __future__ import annotations

import math
from typing import Any

import paddle

from resnet_fit.callbacks import logs as read
from resnet_fit.callbacks.clock import Clock
from resnet_fit.errors import RunFailed


class NaNGuard(paddle.callbacks.Callback):
    """Stops a training whose loss is NaN or infinite, before anything of it is saved.

    Raises:
        RunFailed: naming epoch, step and learning rate.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        super().__init__()
        self.clock = clock or Clock()
        self._rate = 0.0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.clock.begin()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.clock.begin_epoch(epoch)

    def on_train_batch_begin(self, step: int, logs: dict[str, Any] | None = None) -> None:
        self._rate = read.learning_rate(self)

    def on_train_batch_end(self, step: int, logs: dict[str, Any] | None = None) -> None:
        self.clock.count(step, logs["batch_size"] if logs else 0)
        loss = read.metrics(self, logs).get("loss", 0.0)
        if not math.isfinite(loss):
            raise RunFailed(
                f"the loss became {loss} in epoch {self.clock.epoch} at step {self.clock.step}, at "
                f"a learning rate of {self._rate:g}; the last checkpoint is from before that. Try "
                "a lower optimizer.learning_rate, a warm-up, or training.clip_norm"
            )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.clock.end_epoch()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.clock.end()
