"""Ends a training that has diverged."""

from __future__ import annotations

import math
import warnings
from typing import Any, ClassVar

from resnet_fit.callbacks import logs as read
from resnet_fit.callbacks.clock import Clock, Clocked
from resnet_fit.errors import Diverged
from resnet_fit.training.finite import not_finite

# No network that learns has such a loss: guessing among a million classes gives 14.
ABSURD = 1e4
ADVICE = "try a lower optimizer.learning_rate, a warm-up, or optimizer.clip_norm"


class NaNGuard(Clocked):
    """Ends a training with NaN or infinite numbers in it, before anything of it is saved.

    It looks at the loss of each step, at all metrics of each evaluation, and at weights and running
    statistics every ``every_steps`` steps and at each epoch's end: on a CPU ReLU makes 0 of NaN, so
    that the loss may stay finite when they are not. `Checkpoint` looks again at all it saves.

    An evaluation with a loss that is finite and absurd is told in a warning, as it may be that of
    one epoch only. To be listed after the callbacks that evaluate, and before those that write.

    Args:
        every_steps: a check reads all weights once; at 20 it takes well below 1 % of the time.
        clock: one that is shared with other callbacks; its own by default.

    Raises:
        Diverged: naming what is not finite, epoch, step and learning rate.
    """

    phase: ClassVar[str] = "evaluate"

    def __init__(self, clock: Clock | None = None, every_steps: int = 20) -> None:
        super().__init__(clock)
        self.every_steps = every_steps
        self._checked_step = 0  # of the epoch

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_begin(epoch, logs)
        self._checked_step = self.clock.epoch_step  # 0, unless the epoch goes on

    def on_train_batch_end(self, step: int, logs: dict[str, Any] | None = None) -> None:
        super().on_train_batch_end(step, logs)
        loss = read.metrics(self, logs).get("loss", 0.0)
        if not math.isfinite(loss):
            raise diverged(f"the loss became {loss}", self)
        if self.clock.has_passed(self.every_steps, self._checked_step):
            self._checked_step = self.clock.epoch_step
            self._check_network()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        self._check_network()

    def on_eval_end(self, logs: dict[str, Any] | None = None) -> None:
        metrics = read.metrics(self, logs)
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise diverged(f"the evaluation's {name} became {value}", self)
        problem = absurd(metrics)
        if problem:
            warnings.warn(
                f"epoch {self.clock.epoch}: the evaluation's {problem}; {ADVICE}", stacklevel=1
            )

    def _check_network(self) -> None:
        name = not_finite(self.model.network.state_dict())
        if name is not None:
            raise diverged(f"{name} became NaN or infinite", self)


def diverged(what: str, where: Clocked) -> Diverged:
    """The error that ends a training; ``what`` says which number diverged."""
    clock = where.clock
    rate = where.rate or read.learning_rate(where)  # before a first step, that step's
    return Diverged(
        f"the training diverged: {what} in epoch {clock.epoch} at step {clock.step}, at a learning "
        f"rate of {rate:g}; {ADVICE}"
    )


def absurd(metrics: dict[str, float]) -> str | None:
    """The name and value of a loss above `ABSURD`, or None."""
    losses = {name: value for name, value in metrics.items() if name.endswith("loss")}
    return next((f"{n} is {v:.3g}" for n, v in losses.items() if not v <= ABSURD), None)
