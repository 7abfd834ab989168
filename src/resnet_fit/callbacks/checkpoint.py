"""Checkpoints ``last`` and ``best``, and of single epochs."""

from __future__ import annotations

import shutil
import time
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

from resnet_fit import parallel
from resnet_fit.callbacks import logs as read
from resnet_fit.callbacks.clock import Clock, Clocked
from resnet_fit.callbacks.nan_guard import diverged
from resnet_fit.checkpoints.files import epoch_name, epoch_of
from resnet_fit.checkpoints.folder import Average, copy_checkpoint, save_checkpoint
from resnet_fit.checkpoints.optimizer_state import accumulators
from resnet_fit.errors import check_choice
from resnet_fit.files import finite
from resnet_fit.training.finite import not_finite
from resnet_fit.training.metric_names import better


class Stateful(Protocol):
    """Whatever has a state of plain numbers and lists: clocks, callbacks, metrics."""

    def state_dict(self) -> dict[str, Any]: ...

    def set_state_dict(self, state: dict[str, Any]) -> None: ...


class Checkpoint(Clocked):
    """Saves ``last`` after every epoch, and ``best`` when an evaluation beats all before it.

    Before an epoch's evaluation ``last`` is saved as well where there is none yet, or where it is
    due by ``every_minutes``: an evaluation takes its time too, and may be ended by anything.

    Args:
        folder: gets the folders ``last`` and ``best``.
        monitor: a metric of the evaluation.
        mode: ``max`` or ``min``: which direction is better; ``min`` for a loss by default.
        every_minutes, every_steps: how often ``last`` is saved within an epoch; never by default.
            Of accumulated batches it is saved after the group in which it is due.
        keep: of how many epochs, the newest ones, to keep the checkpoint as ``epoch-0001`` etc.
            Folders of other names are never touched.
        average, parts, documents: what is saved besides weights, optimizer, schedule, metrics and
            this callback's own best value: averaged weights, the state of other objects by name,
            and texts by file name.
        evaluated: the epochs, counted from 1, that an evaluation follows; all by default.
        clock: one that is shared with other callbacks; its own by default.

    Attributes:
        awaits_evaluation: whether ``last`` is of an epoch whose evaluation is still to be made.

    Raises:
        UserError: for another ``mode``; before the first epoch, if the model has no such metric.
        Diverged: when it is to save NaN or infinite numbers. What was saved before stays.
    """

    phase: ClassVar[str] = "save"

    def __init__(
        self,
        folder: str | Path,
        *,
        monitor: str = "top1",
        mode: str | None = None,
        every_minutes: float | None = None,
        every_steps: int | None = None,
        keep: int = 0,
        average: Average | None = None,
        parts: Mapping[str, Stateful] | None = None,
        documents: Mapping[str, str] | None = None,
        evaluated: Container[int] | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(clock)
        self.folder = Path(folder)
        self.monitor, self.mode = monitor, mode or better(monitor)
        check_choice("mode", self.mode, ("max", "min"))
        self.every_minutes, self.every_steps, self.keep = every_minutes, every_steps, keep
        self.average, self.parts = average, dict(parts or {})
        self.documents = dict(documents or {})
        self.evaluated = evaluated
        self.best: float | None = None
        self._best_step: int | None = None
        self.awaits_evaluation = False
        self._unsaved = False
        self._saved_at = time.monotonic()
        self._saved_step = 0  # of the epoch

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        read.require_metric(self, "checkpoint.monitor", self.monitor)
        self._saved_at = time.monotonic()
        super().on_train_begin(logs)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self._unsaved:  # the epoch before, where no evaluation followed it
            self._save_epoch()
        super().on_epoch_begin(epoch, logs)
        self._saved_step = self.clock.epoch_step  # 0, unless the epoch goes on

    def on_train_batch_end(self, step: int, logs: dict[str, Any] | None = None) -> None:
        super().on_train_batch_end(step, logs)
        if self.can_save and self._is_due:
            self.save()
            self.clock.await_batch()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        if self.evaluated is None or self.clock.epoch in self.evaluated:
            self._unsaved = True
        else:
            self._save_epoch()

    def on_eval_begin(self, logs: dict[str, Any] | None = None) -> None:
        if self._unsaved and (self._is_due_by_time or not self._has_saved):
            self.save_before_evaluation()
            self._unsaved = True  # until it is evaluated

    def on_eval_end(self, logs: dict[str, Any] | None = None) -> None:
        if not self._unsaved:
            return
        self.awaits_evaluation = False
        value = read.metrics(self, logs).get(self.monitor)
        improved = value is not None and read.improves(value, self.best, self.mode)
        if improved:
            self.best, self._best_step = value, self.clock.step
        self._save_epoch()
        if improved:
            self._copy(self.folder / "last", "best")

    def complete(self, source: Path) -> None:
        """Make up for a stop between saving ``last``, loaded from ``source``, and its copies."""
        if self._best_step == self.clock.step:
            self._copy(source, "best")
        if not (self.clock.within_epoch or self.awaits_evaluation):
            self._keep_epoch(source)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if self._unsaved:
            self._save_epoch()
        super().on_train_end(logs)

    @property
    def _has_saved(self) -> bool:
        return bool(parallel.first(lambda: (self.folder / "last").exists()))

    @property
    def _is_due(self) -> bool:
        every = self.every_steps
        by_steps = every is not None and self.clock.has_passed(every, self._saved_step)
        return by_steps or self._is_due_by_time

    @property
    def _is_due_by_time(self) -> bool:
        if self.every_minutes is None:
            return False
        due = (time.monotonic() - self._saved_at) / 60 >= self.every_minutes
        return bool(parallel.largest([due and parallel.is_first()])[0])  # one clock for all

    @property
    def can_save(self) -> bool:
        """Whether a run could go on from here.

        Not amid accumulated batches, whose gradients would be lost, and not after an epoch's last
        step, whose evaluation would: the epoch's own checkpoint follows it.
        """
        return self.ends_group and self.clock.epoch_step != self.clock.epoch_steps

    def save(self) -> None:
        """Save ``last`` as the training stands now, between two steps."""
        model = self.model
        state = {
            "checkpoint": self.state_dict(),
            "clock": self.clock.state_dict(),
            "metrics": [m.state_dict() for m in model._metrics if hasattr(m, "state_dict")],
            **{name: part.state_dict() for name, part in self.parts.items()},
        }
        self._require_finite(state)
        last = self.folder / "last"
        parallel.first(lambda: save_checkpoint(last, model, state, self.average, self.documents))
        self._unsaved = False
        self._saved_at, self._saved_step = time.monotonic(), self.clock.epoch_step

    def save_before_evaluation(self) -> None:
        """Save an epoch before or amid its evaluation, which a run that goes on makes first.

        Outside of an epoch's evaluation nothing is saved.
        """
        if not self._unsaved:
            return
        if self.average is not None:
            self.average.withdraw()
        self.model._reset_metrics()  # of the batches that were evaluated
        self.awaits_evaluation = True
        self.save()

    def _require_finite(self, state: dict[str, Any]) -> None:
        model = self.model
        tensors = {**model.network.state_dict(), **accumulators(model._optimizer, model.network)}
        name = not_finite(tensors)
        if name is None and self.average is not None:
            name = not_finite(self.average.weights())
            name = name and f"the average of {name}"
        metrics = state["metrics"]
        if name is None and finite(metrics) != metrics:
            name = "a metric"
        if name is not None:
            raise diverged(f"{name} became NaN or infinite", self)

    def _save_epoch(self) -> None:
        """Save ``last`` after an epoch, and keep it where that is asked for."""
        self.save()
        self._keep_epoch(self.folder / "last")

    def _keep_epoch(self, source: Path) -> None:
        if self.keep:
            self._copy(source, epoch_name(self.clock.epoch))
            if not parallel.is_first():
                return
            kept = {epoch: path for path in self.folder.iterdir() if (epoch := epoch_of(path))}
            for epoch in sorted(kept)[: -self.keep]:
                shutil.rmtree(kept[epoch], ignore_errors=True)

    def _copy(self, source: Path, name: str) -> None:
        parallel.first(lambda: copy_checkpoint(source, self.folder / name))

    def state_dict(self) -> dict[str, Any]:
        return {
            "best": self.best,
            "best_step": self._best_step,
            "awaits_evaluation": self.awaits_evaluation,
        }

    def set_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self._best_step = state["best"], state["best_step"]
        self._unsaved = self.awaits_evaluation = state["awaits_evaluation"]
