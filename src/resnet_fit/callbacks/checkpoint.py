"""Checkpoints ``last`` and ``best``, and of single epochs."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from resnet_fit.callbacks import logs as read
from resnet_fit.callbacks.clock import Clock, Clocked
from resnet_fit.errors import check_choice
from resnet_fit.training.checkpoints import Average, copy_checkpoint, save_checkpoint


class Stateful(Protocol):
    """Whatever has a state of plain numbers and lists: clocks, callbacks, metrics."""

    def state_dict(self) -> dict[str, Any]: ...

    def set_state_dict(self, state: dict[str, Any]) -> None: ...


class Checkpoint(Clocked):
    """Saves ``last`` after every epoch, and ``best`` when an evaluation beats all before it.

    Args:
        folder: gets the folders ``last`` and ``best``.
        monitor: a metric of the evaluation.
        mode: ``max`` or ``min``: which direction is better.
        every_minutes, every_steps: how often ``last`` is saved within an epoch; never by default.
        keep: of how many epochs, the newest ones, to keep the checkpoint as ``epoch-0001`` etc.
        average: averaged weights, to be saved beside the network's own.
        parts: whatever else a resumed run needs, by name. Weights, optimizer, schedule, metrics
            and this callback's own best value are saved anyway.
        documents: texts to be put into every checkpoint, by file name.
        clock: one that is shared with other callbacks; its own by default.

    Raises:
        UserError: for another ``mode``; before the first epoch, if the model has no such metric.
    """

    def __init__(
        self,
        folder: str | Path,
        monitor: str = "top1",
        mode: str = "max",
        every_minutes: float | None = None,
        parts: Mapping[str, Stateful] | None = None,
        clock: Clock | None = None,
        every_steps: int | None = None,
        keep: int = 0,
        average: Average | None = None,
        documents: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(clock)
        check_choice("mode", mode, ("max", "min"))
        self.folder = Path(folder)
        self.every_steps = every_steps
        self.keep = keep
        self.average = average
        self.documents = dict(documents or {})
        self.monitor = monitor
        self.mode = mode
        self.every_minutes = every_minutes
        self.parts = dict(parts or {})
        self.best: float | None = None
        self._best_step: int | None = None
        self._unsaved = False
        self._saved_at = time.monotonic()

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        read.require_metric(self, "checkpoint.monitor", self.monitor)
        self._saved_at = time.monotonic()
        super().on_train_begin(logs)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self._unsaved:  # the epoch before, where no evaluation followed it
            self._save_epoch()
        super().on_epoch_begin(epoch, logs)

    def on_train_batch_end(self, step: int, logs: dict[str, Any] | None = None) -> None:
        super().on_train_batch_end(step, logs)
        if self._is_due and self.can_save:
            self.save()
            self.clock.await_batch()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        self._unsaved = True

    def on_eval_end(self, logs: dict[str, Any] | None = None) -> None:
        if not self._unsaved:
            return
        value = read.metrics(self, logs).get(self.monitor)
        improved = value is not None and read.improves(value, self.best, self.mode)
        if improved:
            self.best, self._best_step = value, self.clock.step
        self._save_epoch()
        if improved:
            copy_checkpoint(self.folder / "last", self.folder / "best")

    def complete(self, source: Path) -> None:
        """Make up for a stop between saving ``last``, loaded from ``source``, and ``best``."""
        if self._best_step == self.clock.step:
            copy_checkpoint(source, self.folder / "best")

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if self._unsaved:
            self._save_epoch()
        super().on_train_end(logs)

    @property
    def _is_due(self) -> bool:
        minutes = (time.monotonic() - self._saved_at) / 60
        by_time = self.every_minutes is not None and minutes >= self.every_minutes
        by_steps = self.every_steps is not None and self.clock.epoch_step % self.every_steps == 0
        return by_time or by_steps

    @property
    def can_save(self) -> bool:
        """Whether a run could go on from here.

        Not amid accumulated batches, whose gradients would be lost, and not after an epoch's last
        step, whose evaluation would: the epoch's own checkpoint follows it.
        """
        accumulated = self.clock.epoch_step % getattr(self.model, "_accumulate", 1)
        return accumulated == 0 and self.clock.epoch_step != self.clock.epoch_steps

    def save(self) -> None:
        """Save ``last`` as the training stands now, between two steps."""
        model = self.model
        state = {
            "checkpoint": self.state_dict(),
            "clock": self.clock.state_dict(),
            "metrics": [m.state_dict() for m in model._metrics if hasattr(m, "state_dict")],
            **{name: part.state_dict() for name, part in self.parts.items()},
        }
        save_checkpoint(self.folder / "last", model, state, self.average, self.documents)
        self._unsaved = False
        self._saved_at = time.monotonic()

    def _save_epoch(self) -> None:
        """Save ``last`` after an epoch, and keep it where that is asked for."""
        self.save()
        if self.keep:
            copy_checkpoint(self.folder / "last", self.folder / f"epoch-{self.clock.epoch:04}")
            for old in sorted(self.folder.glob("epoch-*"))[: -self.keep]:
                shutil.rmtree(old, ignore_errors=True)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "best_step": self._best_step}

    def set_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self._best_step = state["best"], state["best_step"]
