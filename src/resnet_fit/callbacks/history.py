"""The metrics of every epoch, in a file and in memory."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from resnet_fit.callbacks import logs as read
from resnet_fit.callbacks.clock import Clock, Clocked
from resnet_fit.files import json_text, write_text
from resnet_fit.training.metric_names import better

Row = dict[str, Any]


class History(Clocked):
    """One row per epoch: ``epoch``, ``step``, ``learning_rate`` (of its last step), ``train`` and
    ``eval`` with their metrics, ``images_per_second``, ``train_seconds``, ``data_wait`` (the share
    of them spent on waiting for data), ``eval_seconds`` and ``seconds`` since the run began.
    A metric that is NaN or infinite is null in the file.

    Args:
        file: where the rows go as JSON lines; None keeps them in ``rows`` only.
        clock: one that is shared with other callbacks; its own by default.
    """

    def __init__(self, file: str | Path | None = None, clock: Clock | None = None) -> None:
        super().__init__(clock)
        self.file = Path(file) if file else None
        self.rows: list[Row] = []
        self._earlier = ""  # all rows but the last as text, which long runs need not encode again
        self._eval_begun = 0.0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if self.file is not None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
        super().on_train_begin(logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        clock = self.clock
        self._earlier = self._text
        row = {
            "epoch": clock.epoch,
            "step": clock.step,
            "learning_rate": self.rate,
            "train": read.metrics(self, logs),
            "images_per_second": round(clock.images_per_second, 1),
            "train_seconds": round(clock.epoch_seconds, 4),
            "data_wait": round(clock.data_wait, 4),
            "seconds": round(clock.seconds, 4),
        }
        self.rows.append(row)
        self._write()

    def on_eval_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._eval_begun = time.perf_counter()

    def on_eval_end(self, logs: dict[str, Any] | None = None) -> None:
        if not self.rows or "eval" in self.rows[-1]:  # of other data, after `fit`
            return
        self.rows[-1]["eval"] = read.metrics(self, logs)
        self.rows[-1]["eval_seconds"] = round(time.perf_counter() - self._eval_begun, 4)
        self.rows[-1]["seconds"] = round(self.clock.seconds, 4)
        self._write()

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self._text}

    def set_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from the rows of an earlier sitting; later ones in the file are dropped."""
        lines = state["rows"].splitlines(keepends=True)
        self.rows = [json.loads(line) for line in lines]
        self._earlier = "".join(lines[:-1])
        self._write()

    @property
    def _text(self) -> str:
        return self._earlier + "".join(json_text(row, None) for row in self.rows[-1:])

    def _write(self) -> None:
        if self.file is not None:
            write_text(self.file, self._text)


def best_row(rows: list[Row], monitor: str) -> Row | None:
    """The row whose evaluation is best in the metric ``monitor``; the first of equals.

    NaN and infinity never count.
    """
    best, best_value = None, None
    for row in rows:
        value = row.get("eval", {}).get(monitor)
        if value is not None and read.improves(value, best_value, better(monitor)):
            best, best_value = row, value
    return best
