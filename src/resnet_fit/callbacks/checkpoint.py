"""Checkpoints ``last`` and ``best``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import paddle

from resnet_fit.callbacks import logs as read
from resnet_fit.callbacks.clock import Clock
from resnet_fit.errors import UserError, suggest
from resnet_fit.training.checkpoints import copy_checkpoint, save_checkpoint


class Checkpoint(paddle.callbacks.Callback):
    """Saves ``last`` after every epoch, and ``best`` when an evaluation beats all before it.

    Args:
        folder: gets the folders ``last`` and ``best``.
        monitor: a metric of the evaluation.
        mode: ``max`` or ``min``: which direction is better.
        best: the best value of an earlier sitting.
        clock: where a resumed run stands; a new one by default.

    Raises:
        UserError: before the first epoch, if the model has no metric of that name.
    """

    def __init__(
        self,
        folder: str | Path,
        monitor: str = "top1",
        mode: str = "max",
        best: float | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__()
        self.folder = Path(folder)
        self.monitor = monitor
        self.mode = mode
        self.best = best
        self.clock = clock or Clock()
        self._unsaved = False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        names = self.params["metrics"]
        if self.monitor not in names:
            raise UserError(
                f"checkpoint.monitor: there is no metric '{self.monitor}'."
                f"{suggest(self.monitor, names)} This model has: {', '.join(dict.fromkeys(names))}"
            )
        self.clock.begin()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._save()  # of the epoch before, where no evaluation followed it
        self.clock.begin_epoch()

    def on_train_batch_end(self, step: int, logs: dict[str, Any] | None = None) -> None:
        self.clock.count(logs["batch_size"] if logs else 0)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._unsaved = True

    def on_eval_end(self, logs: dict[str, Any] | None = None) -> None:
        if not self._unsaved:
            return
        value = read.metrics(self, logs).get(self.monitor)
        improved = value is not None and self._improves(value)
        if improved:
            self.best = value
        self._save()
        if improved:
            copy_checkpoint(self.folder / "last", self.folder / "best")

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._save()

    def _improves(self, value: float) -> bool:
        if self.best is None:
            return value == value
        return value > self.best if self.mode == "max" else value < self.best

    def _save(self) -> None:
        if not self._unsaved:
            return
        state = {
            "epoch": self.clock.epoch,
            "step": self.clock.step,
            "seconds": round(self.clock.seconds, 2),
            "best": {"monitor": self.monitor, "mode": self.mode, "value": self.best},
        }
        model = self.model
        save_checkpoint(self.folder / "last", model.network, model._optimizer, state)
        self._unsaved = False
