"""What a training looks like in the terminal."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from rich.console import Console

from resnet_fit.callbacks import logs as read
from resnet_fit.callbacks.clock import Clock, Clocked
from resnet_fit.callbacks.time_left import TimeLeft
from resnet_fit.live_line import Column, LiveLine, clock_time
from resnet_fit.terminal import packed, record, training_console
from resnet_fit.training.metric_names import is_share

# The share of an epoch that is spent on waiting for data is shown from here on.
WORTH_SAYING = 0.05
# Seconds between two states of the live line, which is drawn still less often.
INTERVAL = 0.1


class ProgressBar(Clocked):
    """One line per epoch, and below it a live line where output is a terminal.

    The live line shows how far an epoch or an evaluation is, its metrics so far, images per second,
    and the time left, evaluations included. An epoch's line says so where the training waited for
    data. Redirected output gets the lines alone, free of control characters.

    Args:
        epochs: of the whole run, where `fit` itself is asked for the rest of one.
        clock: one that is shared with other callbacks; its own by default.
        console: where to write; standard output by default.
        evaluated, tested: images that the network evaluates after each epoch, and after the last
            one, each as often as it computes it: for the time left.
        evaluate_every: epochs from one evaluation to the next, the last one always being evaluated.
    """

    def __init__(
        self,
        epochs: int | None = None,
        clock: Clock | None = None,
        console: Console | None = None,
        evaluated: int = 0,
        tested: int = 0,
        evaluate_every: int = 1,
    ) -> None:
        super().__init__(clock)
        self.epochs = epochs
        self.console = console or training_console()
        self.time_left = TimeLeft(self.clock, evaluated, tested, evaluate_every)
        self.live_line = LiveLine(self.console)
        self._line: list[str] = []
        self._within_fit = False
        self._steps: int | None = None
        self._images, self._views = 0, 1
        self._begun = self._updated = 0.0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        super().on_train_begin(logs)
        self.epochs = self.epochs or self.clock.epoch + self.params["epochs"]
        self._within_fit = True

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._print_line()
        super().on_epoch_begin(epoch, logs)
        self.time_left.begin_epoch(self._epochs_left)
        self.live_line.begin(self._epoch)

    def on_train_batch_end(self, step: int, logs: dict[str, Any] | None = None) -> None:
        super().on_train_batch_end(step, logs)
        clock = self.clock
        if self._is_due:
            ends = f"epoch ends in {clock_time(self.time_left.of_epoch)}"
            self._update(clock.epoch_step, clock.epoch_steps, logs, clock.images_per_second, ends)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        clock = self.clock
        speed = f"{clock.images_per_second:,.0f} img/s"
        self._line = [self._epoch, *_groups(read.metrics(self, logs), "train "), speed]
        if clock.data_wait >= WORTH_SAYING:
            self._line.append(f"waits for data {clock.data_wait:.0%}".replace("%", " %"))
        self.time_left.end_epoch(self._epochs_left)

    def on_eval_begin(self, logs: dict[str, Any] | None = None) -> None:
        logs = logs or {}
        self._steps, self._views = logs.get("steps"), logs.get("views", 1)
        self._images, self._begun = 0, time.perf_counter()
        if not self._within_fit:
            self.time_left.begin_test()
        elif not self._line:  # the epoch was trained in an earlier sitting
            self._line = [self._epoch]
            self.time_left.end_epoch(self._epochs_left)
        self.live_line.begin(logs.get("evaluation", "evaluate"))

    def on_eval_batch_end(self, step: int, logs: dict[str, Any] | None = None) -> None:
        images = (logs or {}).get("batch_size", 0)
        self._images += images
        share = (step + 1) / self._steps if self._steps else 1.0
        self.time_left.evaluate(images * self._views, share)
        if self._is_due:
            speed = self._images / (time.perf_counter() - self._begun or 1.0)
            self._update(step + 1, self._steps, logs, speed, self._epoch if self._line else "")

    def on_eval_end(self, logs: dict[str, Any] | None = None) -> None:
        if not self._within_fit:
            self.close()
        elif self._line:
            self._line += _groups(read.metrics(self, logs), "eval ")
            self.time_left.end_evaluations()
            self._print_line()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.close()
        super().on_train_end(logs)

    def print(self, what: str, metrics: dict[str, float]) -> None:
        """Print the metrics of something, and give them to the run's log."""
        self._print([what, *_groups(metrics)])

    def close(self) -> None:
        """Give the terminal back: done at the end of `fit`, and needed after an error."""
        self._print_line()
        self.live_line.close()
        self._within_fit = False

    @property
    def _epoch(self) -> str:
        return f"epoch {self.clock.epoch:>{len(str(self.epochs))}}/{self.epochs}"

    @property
    def _is_due(self) -> bool:
        """Whether the live line is to show something new, which not every short step has to."""
        return self.live_line.is_shown and time.perf_counter() - self._updated >= INTERVAL

    @property
    def _epochs_left(self) -> int:
        return (self.epochs or 0) - self.clock.epoch

    def _update(
        self, step: int, steps: int | None, logs: dict[str, Any] | None, speed: float, middle: str
    ) -> None:
        """Let the live line show a step, by what matters most."""
        self._updated = time.perf_counter()
        values = read.own_metrics(self, logs)
        most = next((name for name in values if not name.endswith("loss")), None)
        ranks = {name: 5 if name == "loss" else 8 for name in values} | {most: 2}
        columns = [
            Column(f"{step}/{steps or '?'}", 9),
            *(Column(show({name: value}), ranks[name]) for name, value in values.items()),
            Column(f"{speed:,.0f} img/s", 4),
            Column(middle, 7),
            Column(f"{clock_time(self.clock.seconds)} used", 10),
            Column(f"{clock_time(self.time_left.of_run)} left", 1),
        ]
        self.live_line.update(step / steps if steps else 0.0, columns)

    def _print_line(self) -> None:
        """Print the line of an epoch, evaluated or not."""
        if self._line:
            used, left = clock_time(self.clock.seconds), clock_time(self.time_left.of_run)
            line, self._line = [*self._line, f"{used} used, {left} left"], []
            self._print(line)

    def _print(self, pieces: Sequence[str]) -> None:
        record("  ".join(pieces))
        width = self.console.width if self.console.is_terminal else None
        text = "\n".join(packed(pieces, width))
        self.console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)


def _groups(metrics: dict[str, float], what: str = "") -> list[str]:
    """``eval loss 1.2 top1 50 %``, and a group for each evaluation beside it, such as ``ema_``."""
    kinds = groupby(metrics, lambda name: name.rpartition("_")[0])
    groups = [show({name: metrics[name] for name in names}) for _, names in kinds]
    return [what + groups[0], *groups[1:]] if groups else []


def show(metrics: dict[str, float]) -> str:
    """``loss 1.2345 top1 56.70 %``."""
    return " ".join(
        f"{name} {100 * value:5.2f} %" if is_share(name) else f"{name} {value:.4f}"
        for name, value in metrics.items()
    )
