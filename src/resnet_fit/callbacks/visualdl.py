"""Curves for VisualDL's web page."""

from __future__ import annotations

import contextlib
import io
import os
import time
from pathlib import Path
from typing import Any

import visualdl

from resnet_fit.callbacks import logs as read
from resnet_fit.callbacks.clock import Clock, Clocked
from resnet_fit.files import naming

# The server shows only the newest record file of a folder, so a run must write to one name: a
# second sitting appends to it, where VisualDL's own dated names would hide the first.
RECORDS = "vdlrecords.run.log"


class VisualDL(Clocked):
    """Writes training and evaluation to one axis, the number of training steps.

    - ``step/...`` every ``every_steps`` steps: metrics over the samples since the last point,
      ``learning_rate`` and ``images_per_second``;
    - ``epoch/...`` after each epoch: ``train_<metric>`` and ``eval_<metric>`` over all samples,
      ``images_per_second``, ``train_seconds``, ``data_wait`` (the share of them spent on waiting
      for data) and ``eval_seconds``.

    Args:
        folder: where the records go; its parent is what the server is opened on.
        every_steps: distance of the ``step`` points.
        config: text shown under "samples".
        hyperparameters: names and values to compare runs by.
        clock: one that is shared with other callbacks; its own by default.

    Raises:
        OSError: a record could not be written; it names the file.
    """

    def __init__(
        self,
        folder: str | Path,
        every_steps: int = 20,
        config: str | None = None,
        hyperparameters: dict[str, Any] | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(clock)
        self.folder = Path(folder)
        self.every_steps = every_steps
        self.config = config
        self.hyperparameters = hyperparameters
        self._writer: visualdl.LogWriter | None = None
        self._failure: OSError | None = None
        self._window = _Window()
        self._eval_begun = 0.0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with contextlib.redirect_stdout(io.StringIO()):  # it prints where it appends
            self._writer = visualdl.LogWriter(logdir=str(self.folder), file_name=RECORDS)
        self._notice_failures()
        super().on_train_begin(logs)
        if self.clock.step:
            return
        if self.config:
            self._writer.add_text("config", f"```yaml\n{self.config}\n```", 0)
        if self.hyperparameters:
            names = [f"epoch/eval_{name}" for name in self.params["metrics"]]
            self._writer.add_hparams(_plain(self.hyperparameters), names)

    def on_train_batch_end(self, step: int, logs: dict[str, Any] | None = None) -> None:
        super().on_train_batch_end(step, logs)
        if self.clock.epoch_step % self.every_steps == 0:
            self._add_window(logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        clock = self.clock
        if clock.epoch_images > self._window.images:
            self._add_window(logs)
        self._window = _Window()
        trained = {f"train_{k}": v for k, v in read.metrics(self, logs).items()}
        pace = {
            "images_per_second": clock.images_per_second,
            "train_seconds": clock.epoch_seconds,
            "data_wait": clock.data_wait,
        }
        self._add("epoch", trained | pace)

    def on_eval_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._eval_begun = time.perf_counter()

    def on_eval_end(self, logs: dict[str, Any] | None = None) -> None:
        evaluated = {f"eval_{k}": v for k, v in read.metrics(self, logs).items()}
        seconds = {"eval_seconds": time.perf_counter() - self._eval_begun}
        self._add("epoch", evaluated | seconds)
        self._flush()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._flush()
        self.close()
        super().on_train_end(logs)

    def close(self) -> None:
        """Write what is left: done at the end of `fit`, and needed after an error."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def state_dict(self) -> dict[str, Any]:
        """What is written so far, and the window that is open."""
        self._flush()
        file = self.folder / RECORDS
        size = file.stat().st_size if file.exists() else 0
        return {"bytes": size, "window": vars(self._window)}

    def set_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after what an earlier sitting had written; later records are dropped."""
        file = self.folder / RECORDS
        if file.exists():
            os.truncate(file, min(state["bytes"], file.stat().st_size))
        self._window = _Window(**state["window"])

    def _notice_failures(self) -> None:
        """VisualDL writes in a thread, which prints an error and goes on without the record."""
        assert self._writer is not None
        file = self._writer._get_file_writer()._general_file_writer
        write = file.write

        def noticed(record: bytes) -> None:
            if self._failure is None:
                try:
                    write(record)
                except OSError as error:
                    self._failure = error

        file.write = noticed
        self._failure = None

    def _require_written(self) -> None:
        if self._failure is not None:
            with naming(self.folder / RECORDS):
                raise self._failure

    def _flush(self) -> None:
        if self._writer is not None:
            self._writer._get_file_writer().flush()
            self._require_written()

    def _add_window(self, logs: dict[str, Any] | None) -> None:
        values = read.metrics(self, logs)
        means = self._window.advance(values, self.clock) | read.of_last_batch(self, values)
        self._add("step", {**means, "learning_rate": self.rate})

    def _add(self, group: str, values: dict[str, float]) -> None:
        if self._writer is not None:
            self._require_written()
            for name, value in values.items():
                self._writer.add_scalar(f"{group}/{name}", float(value), self.clock.step)


class _Window:
    """Means since the last point, from means since the epoch's begin."""

    def __init__(
        self, images: int = 0, seconds: float = 0.0, sums: dict[str, float] | None = None
    ) -> None:
        self.images, self.seconds, self.sums = images, seconds, sums or {}

    def advance(self, means: dict[str, float], clock: Clock) -> dict[str, float]:
        images = clock.epoch_images - self.images
        seconds = clock.epoch_seconds - self.seconds
        sums = {name: mean * clock.epoch_images for name, mean in means.items()}
        window = {name: (total - self.sums.get(name, 0.0)) / images for name, total in sums.items()}
        window["images_per_second"] = images / seconds
        self.images, self.seconds, self.sums = clock.epoch_images, clock.epoch_seconds, sums
        return window


def _plain(values: dict[str, Any]) -> dict[str, float | str]:
    """Hyper-parameters as VisualDL takes them: numbers and text, no truth values."""
    return {
        key: value if type(value) in (int, float, str) else str(value)
        for key, value in values.items()
    }
