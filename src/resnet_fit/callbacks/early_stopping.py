"""Ends a training that no longer gets better."""

from __future__ import annotations

from typing import Any, ClassVar

from resnet_fit.callbacks import logs as read
from resnet_fit.callbacks.clock import Clock, Clocked
from resnet_fit.errors import check_choice, require
from resnet_fit.training.metric_names import better


class EarlyStopping(Clocked):
    """Ends `fit` after ``patience`` evaluations that did not beat the best one.

    `paddle.callbacks.EarlyStopping` forgets its counters when a run is resumed; this one has a
    state to save. To be listed before the checkpoint that saves it.

    Args:
        monitor: a metric of the evaluation.
        mode: ``max`` or ``min``: which direction is better; ``min`` for a loss by default.
        patience: evaluations to wait.
        min_delta: an evaluation must beat the best one by more than this.
        clock: one that is shared with other callbacks; its own by default.

    Attributes:
        stopped: the epoch it ended the training after, or None.

    Raises:
        UserError: for another ``mode`` or no patience; before the first epoch, if the model has no
            such metric.
    """

    everywhere: ClassVar[bool] = True  # every process has to stop

    def __init__(
        self,
        monitor: str = "top1",
        *,
        mode: str | None = None,
        patience: int = 10,
        min_delta: float = 0.0,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(clock)
        require(patience >= 1, "patience", patience, "1 or more evaluations")
        self.monitor, self.mode = monitor, mode or better(monitor)
        check_choice("mode", self.mode, ("max", "min"))
        self.patience, self.min_delta = patience, min_delta
        self.best: float | None = None
        self.waited = 0
        self.stopped: int | None = None
        self._trained = False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        read.require_metric(self, "monitor", self.monitor)
        super().on_train_begin(logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        self._trained = True

    def on_eval_end(self, logs: dict[str, Any] | None = None) -> None:
        value = read.metrics(self, logs).get(self.monitor)
        if value is None or not self._trained:  # an evaluation outside of `fit`
            return
        self._trained = False
        if read.improves(value, self.best, self.mode, self.min_delta):
            self.best, self.waited = value, 0
            return
        self.waited += 1
        if self.waited >= self.patience:
            self.stopped = self.clock.epoch
            self.model.stop_training = True

    def state_dict(self) -> dict[str, Any]:
        return {
            "best": self.best,
            "waited": self.waited,
            "stopped": self.stopped,
            "trained": self._trained,
        }

    def set_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.waited = state["best"], state["waited"]
        self.stopped = state["stopped"]
        self._trained = state["trained"]
