"""A training in VisualDL's web page: curves, images, histograms, the network, and its settings."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from paddle import Tensor

from resnet_fit.callbacks import logs as read
from resnet_fit.callbacks.clock import Clock, Clocked
from resnet_fit.callbacks.contact_sheet import Normalisation, contact_sheet
from resnet_fit.callbacks.records import RECORDS, Records, cut
from resnet_fit.callbacks.replaced import Replaced
from resnet_fit.errors import first_line
from resnet_fit.files import readable, write_text
from resnet_fit.networks.graph import GRAPH, describe_graph
from resnet_fit.runtime import import_visualdl

# Of a tensor with many more values than this, so many at equal distances are counted.
MOST_VALUES = 1 << 16
# Images are shown at the begin of epochs 1, 2, 4, 8 and so on up to this one: of ten epochs.
LAST_WITH_IMAGES = 512


class VisualDL(Clocked):
    """Writes record files that VisualDL's server lays over each other: one tag is one chart.

    Each folder of records is a run for the server: ``train`` of the training, ``eval`` of the
    evaluations, and one for each evaluation beside those, ``ema`` of averaged weights and ``flip``
    of mirrored images. They share one axis, the number of training steps.

    - ``epoch/<metric>`` after each epoch, over all samples, in every folder;
    - ``speed/...`` after each epoch: ``seconds`` of training and of evaluation,
      ``images_per_second`` and ``data_wait`` (the share of the seconds spent on waiting for data);
    - ``step/...`` every ``every_steps`` steps of training: metrics over the samples since the last
      point, ``learning_rate`` and ``images_per_second``;
    - ``config/<section>``, texts, and hyper-parameters, once;
    - ``batch``, images of epochs 1, 2, 4, 8, ..., 512 as the network sees them;
    - histograms after each epoch of what convolutions and linear layers are trained in, as
      ``layer1/0.conv1.weight``, and of its gradient, as ``layer1/0.conv1.weight.gradient``. That
      is of the epoch's last step, where `fit` knows which that is. Of large tensors some 65,536
      values at equal distances count, and only finite ones.

    Args:
        folder: where the folders go; it, or one above it, is what the server is opened on.
        every_steps: distance of the ``step`` points.
        config: sections of settings, shown as texts.
        hyperparameters: names and values to compare runs by.
        clock: one that is shared with other callbacks; its own by default.
        images: whether images of batches are shown.
        normalisation: mean and deviation that the images were normalised by, in units of 0..1.
        histograms: whether there are histograms.
        graph: ``(C, H, W)`` of an image, for the graph of the network; None for none.

    Raises:
        OSError: a record could not be written; it names the file.
        RunFailed: VisualDL cannot be imported.
    """

    def __init__(
        self,
        folder: str | Path,
        every_steps: int = 20,
        config: Mapping[str, Any] | None = None,
        hyperparameters: Mapping[str, Any] | None = None,
        clock: Clock | None = None,
        *,
        images: bool = True,
        normalisation: Normalisation | None = None,
        histograms: bool = True,
        graph: tuple[int, int, int] | None = None,
    ) -> None:
        super().__init__(clock)
        import_visualdl()  # fails here rather than in a training
        self.folder = Path(folder)
        self.every_steps = every_steps
        self.config = config
        self.hyperparameters = hyperparameters
        self.images, self.normalisation = images, normalisation
        self.histograms = histograms
        self.graph = graph
        self._records: dict[str, Records] = {}
        self._folders: set[str] = set()  # of this sitting, and of those it goes on from
        self._goes_on = False
        self._window = _Window()
        self._eval_begun = 0.0
        self._watched: list[Replaced] = []

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        train = self._open("train")
        if train.are_new:
            for section, settings in (self.config or {}).items():
                train.add_text(f"config/{section}", _shown(settings))
        if self.graph is not None and not (self.folder / GRAPH).exists():
            self._draw(self.graph)
        super().on_train_begin(logs)

    def on_train_batch_begin(self, step: int, logs: dict[str, Any] | None = None) -> None:
        super().on_train_batch_begin(step, logs)
        clock = self.clock
        if self.images and clock.is_first_batch and _is_among_ten(clock.epoch):
            self._watched.append(Replaced(self.model, "train_batch", self._add_images))
        if self.histograms and clock.is_last_batch:
            network = self.model.network
            self._watched.append(Replaced(network, "clear_gradients", self._add_gradients))

    def on_train_batch_end(self, step: int, logs: dict[str, Any] | None = None) -> None:
        self._watch_no_more()
        super().on_train_batch_end(step, logs)
        if self.clock.has_passed(self.every_steps, self._window.step):
            self._add_window(logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        clock = self.clock
        self._add_window(logs)
        self._window = _Window()
        pace = {
            "speed/images_per_second": clock.images_per_second,
            "speed/seconds": clock.epoch_seconds,
            "speed/data_wait": clock.data_wait,
        }
        trained = _tagged("epoch", read.metrics(self, logs))
        self._open("train").add_scalars(trained | pace, clock.step)
        if self.histograms:
            for name, parameter in self._kernels():
                self._add_histogram(name, parameter, clock.step)

    def on_eval_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._eval_begun = time.perf_counter()

    def on_eval_end(self, logs: dict[str, Any] | None = None) -> None:
        if not self._records:  # of other data, after `fit`
            return
        seconds = time.perf_counter() - self._eval_begun
        for name, metrics in self._evaluations(read.metrics(self, logs)).items():
            is_first = name not in self._records
            records, scalars = self._open(name), _tagged("epoch", metrics)
            if is_first and records.are_new and self.hyperparameters:
                records.add_hyperparameters(self.hyperparameters, list(scalars))
            if name == "eval":
                scalars["speed/seconds"] = seconds
            records.add_scalars(scalars, self.clock.step)
        self._flush()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._flush()
        self.close()
        super().on_train_end(logs)

    def close(self) -> None:
        """Write what is left: done at the end of `fit`, and needed after an error."""
        self._watch_no_more()
        for records in self._records.values():
            records.close()
        self._records = {}

    def state_dict(self) -> dict[str, Any]:
        """How much of each folder's records is written so far, and the window that is open."""
        self._flush()
        files = {name: self.folder / name / RECORDS for name in self._folders}
        sizes = {name: file.stat().st_size for name, file in files.items() if file.exists()}
        return {"bytes": sizes, "window": vars(self._window)}

    def set_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after what an earlier sitting had written; later records are dropped."""
        sizes = state["bytes"]
        for name, size in sizes.items():
            cut(self.folder / name, size)
        self._folders, self._goes_on = set(sizes), True
        self._window = _Window(**state["window"])

    def _open(self, name: str) -> Records:
        """The records of a folder, to which the first call in a sitting begins to append."""
        if name not in self._records:
            if self._goes_on and name not in self._folders:  # begun after the checkpoint
                (self.folder / name / RECORDS).unlink(missing_ok=True)
            self._folders.add(name)
            self._records[name] = Records(self.folder / name)
        return self._records[name]

    def _flush(self) -> None:
        for records in self._records.values():
            records.flush()

    def _watch_no_more(self) -> None:
        while self._watched:
            self._watched.pop().put_back()

    def _draw(self, image_shape: tuple[int, int, int]) -> None:
        """Write the network's graph, or warn that Paddle cannot trace it."""
        try:
            graph = describe_graph(self.model.network, image_shape)
        except Exception as error:  # a network may do what no static graph can
            warnings.warn(
                f"VisualDL: the network's graph cannot be drawn: {first_line(error)}", stacklevel=2
            )
        else:
            write_text(self.folder / GRAPH, graph)

    def _evaluations(self, metrics: dict[str, float]) -> dict[str, dict[str, float]]:
        """Metrics by the evaluation that they are of, whose name is in front of their own."""
        own = sorted(self.model._metrics_name(), key=len, reverse=True)
        found: dict[str, dict[str, float]] = {}
        for name, value in metrics.items():
            base = next((o for o in own if name == o or name.endswith(f"_{o}")), name)
            evaluation = name.removesuffix(base).rstrip("_") or "eval"
            found.setdefault(evaluation, {})[base] = value
        return found

    def _add_window(self, logs: dict[str, Any] | None) -> None:
        if self.clock.epoch_images == self._window.images:  # or all its steps were left out
            return
        values = read.metrics(self, logs)
        means = self._window.advance(values, self.clock) | read.of_last_batch(self, values)
        scalars = _tagged("step", {**means, "learning_rate": self.rate})
        self._open("train").add_scalars(scalars, self.clock.step)

    def _add_images(self, inputs: Any, *_: Any, **__: Any) -> None:
        """Of the batch that `paddle.Model` is about to train on."""
        first = inputs[0] if isinstance(inputs, (list, tuple)) else inputs
        sheet = contact_sheet(first, self.normalisation)
        if sheet is not None:
            self._open("train").add_image("batch", sheet, self.clock.step + 1)

    def _add_gradients(self) -> None:
        """Of the step that `paddle.Model` has made and not counted yet."""
        for name, kernel in self._kernels():
            if kernel.grad is not None:
                self._add_histogram(f"{name}.gradient", kernel.grad, self.clock.step + 1)

    def _add_histogram(self, name: str, tensor: Tensor, step: int) -> None:
        # The page has a group for what is in front of a slash, and draws all of an open group.
        tag = name.replace(".", "/", 1)
        self._open("train").add_histogram(tag, _some_values(tensor), step)

    def _kernels(self) -> list[tuple[str, Tensor]]:
        """What convolutions and linear layers are trained in; vectors are a hundred more."""
        parameters = self.model.network.named_parameters()
        return [(n, p) for n, p in parameters if not p.stop_gradient and len(p.shape) > 1]


class _Window:
    """Means since the last point, from means since the epoch's begin."""

    def __init__(
        self,
        images: int = 0,
        seconds: float = 0.0,
        sums: dict[str, float] | None = None,
        step: int = 0,
    ) -> None:
        self.images, self.seconds, self.sums, self.step = images, seconds, sums or {}, step

    def advance(self, means: dict[str, float], clock: Clock) -> dict[str, float]:
        images = clock.epoch_images - self.images
        seconds = clock.epoch_seconds - self.seconds
        sums = {name: mean * clock.epoch_images for name, mean in means.items()}
        window = {name: (total - self.sums.get(name, 0.0)) / images for name, total in sums.items()}
        window["images_per_second"] = images / seconds
        self.images, self.seconds, self.sums = clock.epoch_images, clock.epoch_seconds, sums
        self.step = clock.epoch_step
        return window


def _tagged(group: str, values: Mapping[str, float]) -> dict[str, float]:
    return {f"{group}/{name}": value for name, value in values.items()}


def _is_among_ten(epoch: int) -> bool:
    """Whether an epoch is a power of two, at most `LAST_WITH_IMAGES`."""
    return 0 < epoch <= LAST_WITH_IMAGES and epoch & (epoch - 1) == 0


def _some_values(tensor: Tensor) -> np.ndarray:
    """The values of a tensor, or of a large one some at equal distances."""
    size = math.prod(tensor.shape)
    distance = max(1, size // MOST_VALUES)
    while math.gcd(distance, size) > 1:  # else only some places of a kernel might be met
        distance += 1
    values = tensor.detach().reshape([-1])[::distance]
    return values.astype("float32").numpy()


def _shown(settings: Any) -> str:
    """A section of a config in one line: the page breaks lines nowhere."""
    if not isinstance(settings, Mapping):
        return readable(_flow(settings))
    return readable(" | ".join(f"{key}: {_flow(value)}" for key, value in settings.items()))


def _flow(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")
