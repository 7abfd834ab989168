"""A network's predictions for every image of a data set."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import paddle
from paddle import Tensor, nn

from resnet_fit.data.dataset import Dataset, FileDataset
from resnet_fit.errors import RunFailed, UserError
from resnet_fit.runs.open import OpenedRun

# (images done, total)
Progress = Callable[[int, int], object]


@dataclass(frozen=True)
class Predictions:
    """The network's outputs, in the order of the data set.

    Attributes:
        classes: their names.
        labels: int64 ``[N]``.
        logits: float32 ``[N, C]``.
        mirrored: the mean of the logits of each image and its mirror image, ``[N, C]``; None
            without ``flip``.
        names: of the images: the paths of their files, or their indices.
        features: float32 ``[N, F]``, inputs of the last linear layer; None without such a layer.
        seconds: for all images, with reading and preprocessing.
    """

    classes: tuple[str, ...]
    labels: np.ndarray
    logits: np.ndarray
    mirrored: np.ndarray | None
    names: Sequence[str]
    features: np.ndarray | None
    seconds: float

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def probabilities(self) -> np.ndarray:
        """float64 ``[N, C]``."""
        logarithms = log_softmax(self.logits)
        return np.exp(logarithms, out=logarithms)

    @cached_property
    def predicted(self) -> np.ndarray:
        """The most probable class of each image, int64 ``[N]``; ties go to the first class."""
        return self.logits.argmax(axis=1)

    @cached_property
    def confidence(self) -> np.ndarray:
        """The probability of the predicted class, float64 ``[N]``."""
        return self.probabilities.max(axis=1)

    @cached_property
    def wrong(self) -> np.ndarray:
        """Which images are misclassified, bool ``[N]``."""
        return self.predicted != self.labels


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities, float64, without overflow."""
    values = logits.astype(np.float64)
    values -= values.max(axis=1, keepdims=True)
    values -= np.log(np.exp(values).sum(axis=1, keepdims=True))
    return values


def predict(
    run: OpenedRun,
    dataset: Dataset,
    batch_size: int,
    *,
    flip: bool = False,
    progress: Progress | None = None,
) -> Predictions:
    """Classify every image of a data set, preprocessed as in the training's evaluations.

    Raises:
        UserError: an image cannot be read (the message names it), or the network's output is not
            one logit for each class.
        RunFailed: outputs are NaN or infinite.
    """
    workers = getattr(run.config.data, "workers", None)
    loader = run.loader(dataset, batch_size, workers=workers)
    logits: list[np.ndarray] = []
    mirrored: list[np.ndarray] = []
    started = time.perf_counter()
    try:
        with paddle.no_grad(), head_inputs(run.network) as features:
            done = 0
            for images, _ in loader:
                batch = paddle.to_tensor(images)
                logits.append(_logits(run, batch))
                features.keep()
                if flip:
                    mirrored.append((logits[-1] + _logits(run, batch.flip(3))) / 2)
                    features.drop()
                done += len(images)
                if progress is not None:
                    progress(done, len(dataset))
    finally:
        loader.close()
    return Predictions(
        run.classes,
        dataset.labels,
        np.concatenate(logits),
        np.concatenate(mirrored) if flip else None,
        _names(dataset),
        features.array(len(dataset)),
        time.perf_counter() - started,
    )


def _names(dataset: Dataset) -> Sequence[str]:
    names = dataset.paths if isinstance(dataset, FileDataset) else dataset.names
    return names or [str(i) for i in range(len(dataset))]


def _logits(run: OpenedRun, images: Tensor) -> np.ndarray:
    outputs = run.network(images)
    expected = [len(images), len(run.classes)]
    if not isinstance(outputs, Tensor) or list(outputs.shape) != expected:
        got = list(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise UserError(f"the network's outputs: received {got}, expected logits {expected}")
    logits = outputs.astype("float32").numpy()
    if not np.isfinite(logits).all():
        raise RunFailed("the network's outputs are NaN or infinite")
    return logits


class HeadInputs:
    """Collects the inputs of a network's last linear layer, batch by batch."""

    def __init__(self) -> None:
        self.last: Tensor | None = None
        self._batches: list[np.ndarray] = []

    def keep(self) -> None:
        """Add the latest input, if it is one feature vector for each image."""
        if self.last is not None and self.last.ndim == 2:
            self._batches.append(self.last.astype("float32").numpy())
        self.drop()

    def drop(self) -> None:
        self.last = None

    def array(self, images: int) -> np.ndarray | None:
        """``[images, F]``; None if there was not one feature vector for each image."""
        if len({rows.shape[1] for rows in self._batches}) != 1:
            return None
        rows = np.concatenate(self._batches)
        return rows if len(rows) == images else None


@contextmanager
def head_inputs(network: nn.Layer) -> Iterator[HeadInputs]:
    """Hook the last linear layer of a network, in the order in which its layers are defined."""
    inputs = HeadInputs()
    layers = network.sublayers(include_self=True)
    head = next((layer for layer in reversed(layers) if isinstance(layer, nn.Linear)), None)
    if head is None:
        yield inputs
        return

    def note(_: nn.Layer, received: tuple[Tensor, ...]) -> None:
        inputs.last = received[0]

    hook = head.register_forward_pre_hook(note)
    try:
        yield inputs
    finally:
        hook.remove()
