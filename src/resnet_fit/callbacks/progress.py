"""What a training looks like in the terminal."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from resnet_fit.callbacks import logs as read
from resnet_fit.callbacks.clock import Clock, Clocked

# The share of an epoch that is spent on waiting for data is shown from here on.
WORTH_SAYING = 0.05


class ProgressBar(Clocked):
    """One line per epoch, and below it a live bar where output is a terminal.

    The bar shows the metrics so far, images per second, and the time used and left, of the epoch
    and of the whole run. A line says so where the training waited for data. Redirected output gets
    the lines alone, free of control characters.

    Args:
        epochs: of the whole run, where `fit` itself is asked for the rest of one.
        clock: one that is shared with other callbacks; its own by default.
        console: where to write; standard output by default.
    """

    def __init__(
        self,
        epochs: int | None = None,
        clock: Clock | None = None,
        console: Console | None = None,
    ) -> None:
        super().__init__(clock)
        self.epochs = epochs
        self.console = console or Console(highlight=False, soft_wrap=True)
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._line = ""
        self._trained_at = self._epoch_seconds = self._evaluation_seconds = 0.0
        self._epochs_left = 0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        super().on_train_begin(logs)
        self.epochs = self.epochs or self.clock.epoch + self.params["epochs"]
        if self.console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=16),
                TextColumn("{task.completed}/{task.total}  {task.fields[state]}"),
                console=self.console,
                refresh_per_second=4,
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task("", state="")

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._print_line()
        super().on_epoch_begin(epoch, logs)
        self._epochs_left = (self.epochs or 0) - self.clock.epoch
        self._begin_bar(f"epoch {self.clock.epoch}/{self.epochs}", self.clock.epoch_steps)

    def on_train_batch_end(self, step: int, logs: dict[str, Any] | None = None) -> None:
        super().on_train_batch_end(step, logs)
        clock = self.clock
        if self._bar is None:
            return
        steps_left = (clock.epoch_steps or clock.epoch_step) - clock.epoch_step
        left = clock.epoch_seconds / clock.epoch_step * steps_left
        used = clock.epoch_seconds
        run_left = left + self._evaluation_seconds + self._later(used + left)
        state = (
            f"{show(read.metrics(self, logs))}  {clock.images_per_second:,.0f} img/s  "
            f"epoch {clock_time(used)}<{clock_time(left)}  "
            f"run {clock_time(clock.seconds)}<{clock_time(run_left)}"
        )
        self._bar.update(self._task, completed=clock.epoch_step, state=state)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        clock = self.clock
        self._line = (
            f"epoch {clock.epoch:>{len(str(self.epochs))}}/{self.epochs}  "
            f"train {show(read.metrics(self, logs))}  {clock.images_per_second:,.0f} img/s"
        )
        if clock.data_wait >= WORTH_SAYING:
            self._line += f"  waits for data {clock.data_wait:.0%}".replace("%", " %")
        # Where no evaluation follows, a shared clock is in the next epoch when the line is printed.
        self._epoch_seconds = clock.epoch_seconds
        self._trained_at = time.perf_counter()

    def on_eval_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._begin_bar("evaluate", (logs or {}).get("steps"))

    def on_eval_batch_end(self, step: int, logs: dict[str, Any] | None = None) -> None:
        if self._bar is not None:
            state = show(read.metrics(self, logs))
            self._bar.update(self._task, completed=step + 1, state=state)

    def on_eval_end(self, logs: dict[str, Any] | None = None) -> None:
        if self._line:
            self._line += f"  eval {show(read.metrics(self, logs))}"
            self._evaluation_seconds = time.perf_counter() - self._trained_at
            self._print_line()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._print_line()
        self.close()
        super().on_train_end(logs)

    def close(self) -> None:
        """Give the terminal back: done at the end of `fit`, and needed after an error."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _begin_bar(self, description: str, steps: int | None) -> None:
        if self._bar is not None:
            self._bar.reset(self._task, description=description, total=steps, state="")

    def _later(self, epoch_seconds: float) -> float:
        """Seconds of the epochs after this one; evaluation is known after the first."""
        return self._epochs_left * (epoch_seconds + self._evaluation_seconds)

    def _print_line(self) -> None:
        if self._line:
            left = self._later(self._epoch_seconds)
            self.console.print(
                f"{self._line}  {clock_time(self.clock.seconds)} used, {clock_time(left)} left"
            )
            self._line = ""


def show(metrics: dict[str, float]) -> str:
    """``loss 1.2345 top1 56.70 %``."""
    return " ".join(
        f"{name} {value:.2%}".replace("%", " %")
        if name.rpartition("_")[2].startswith("top")  # of other weights or images as well
        else f"{name} {value:.4f}"
        for name, value in metrics.items()
    )


def clock_time(seconds: float) -> str:
    """``0:07``, ``12:30`` or ``1:02:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
