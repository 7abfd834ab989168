"""A run opened again: its network, without the data it was trained on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from paddle import Tensor, nn
from paddle.nn import functional as F

from resnet_fit.backends import choose_backend, use_backend
from resnet_fit.checkpoints.files import (
    AVERAGE,
    CONFIG,
    DATA,
    STATE,
    WEIGHTS,
    find_checkpoint,
)
from resnet_fit.checkpoints.folder import read_state
from resnet_fit.config.operations import build
from resnet_fit.data.dataset import ArrayDataset, Dataset, FileDataset
from resnet_fit.data.loading import ArrayLoader, FileLoader, Loader
from resnet_fit.data.preparing import Preparation, read_as
from resnet_fit.data.record import DataRecord
from resnet_fit.errors import UserError, require
from resnet_fit.home import expand
from resnet_fit.networks.weights import read_tensors, set_weights
from resnet_fit.runs.chosen import choose
from resnet_fit.runs.config import Config
from resnet_fit.runtime import choose_device
from resnet_fit.training.losses.cross_entropy import BinaryCrossEntropy

Paths = Sequence[str | os.PathLike[str]]


@dataclass(frozen=True)
class OpenedRun:
    """A network with what is needed to use it.

    Attributes:
        checkpoint: the folder that its weights are from.
        config: what it was trained by.
        network: in evaluation mode, on the device that was asked for.
        classes: their names, in the order of the logits.
        record: of the training's data: image shape, preprocessing, mean and deviation.
        is_average: whether its weights are the averaged ones.
    """

    checkpoint: Path
    config: Config
    network: nn.Layer
    classes: tuple[str, ...]
    record: DataRecord
    is_average: bool

    @property
    def epoch(self) -> int:
        """The epoch that its weights are of."""
        return read_state(self.checkpoint)["clock"]["epoch"]

    def logits(self, images: np.ndarray | Paths, batch_size: int = 100) -> Tensor:
        """What the network makes of images that are prepared as in the training's evaluations.

        Args:
            images: paths of image files, or uint8 ``[N, C, H, W]``.

        Returns:
            ``[N, classes]``, float32.

        Raises:
            UserError: a file cannot be read, or images have another shape than the training's.
        """
        loader = self.loader(self.dataset(images), batch_size)
        with paddle.no_grad():
            return paddle.concat([self.network(paddle.to_tensor(images)) for images, _ in loader])

    def probabilities(self, images: np.ndarray | Paths, batch_size: int = 100) -> np.ndarray:
        """How likely each class is for each image; see `logits`.

        Returns:
            float32 ``[N, classes]``: of the softmax, so that a row sums to 1, or where the training
            took binary cross entropy the sigmoid of each class by itself.
        """
        return self.activate(self.logits(images, batch_size)).numpy()

    def activate(self, logits: Tensor) -> Tensor:
        """Logits ``[N, classes]`` as the probabilities that the training's loss made of them."""
        return F.sigmoid(logits) if self.judges_each_class else F.softmax(logits, axis=-1)

    @property
    def judges_each_class(self) -> bool:
        """Whether the training's loss judged each class by itself, so that a sigmoid answers."""
        return isinstance(self.config.loss, BinaryCrossEntropy)

    def classify(self, images: np.ndarray | Paths) -> list[str]:
        """The name of the likeliest class of each image; see `logits`."""
        return [self.classes[i] for i in self.logits(images).argmax(axis=1).tolist()]

    def dataset(self, images: np.ndarray | Paths, labels: np.ndarray | None = None) -> Dataset:
        """Images as a data set of the kind that this network was trained on.

        Args:
            images: as `logits` takes them.
            labels: int64 ``[N]`` into ``classes``; zeros by default.

        Raises:
            UserError: as `logits` does; files are read at once where the training's images were in
                memory, and else by a loader.
        """
        labels = np.zeros(len(images), np.int64) if labels is None else labels
        if self.record.stored_shape is None:
            if isinstance(images, np.ndarray):
                raise UserError(
                    "images: received an array, but this network was trained on image files; give "
                    "their paths"
                )
            return FileDataset([os.fspath(path) for path in images], labels, self.classes)
        names = None
        if not isinstance(images, np.ndarray):
            names = tuple(os.fspath(path) for path in images)
            images = np.stack([self.read(path) for path in images])
        expected = ", ".join(map(str, ("N", *self.record.stored_shape)))
        fits = images.shape[1:] == self.record.stored_shape
        require(fits, "images", list(images.shape), f"[{expected}]")
        return ArrayDataset(images, labels, self.classes, names)

    def loader(self, dataset: Dataset, batch_size: int = 100, **options: Any) -> Loader:
        """Batches ``[images, labels]`` of a data set, prepared as in the training's evaluations.

        Args:
            options: of `FileLoader`, for image files: ``workers`` (none by default) and
                ``on_bad_image``.
        """
        operations = build(self.record.preprocessing, self.config.data.operations())
        if isinstance(dataset, ArrayDataset):
            return ArrayLoader(dataset, batch_size, operations)
        return FileLoader(dataset, batch_size, operations, **{"workers": 0} | options)

    def read(self, path: str | os.PathLike[str]) -> np.ndarray:
        """An image file as the images in memory are that this network was trained on.

        Returns:
            uint8 ``[C, H, W]``.

        Raises:
            UserError: it cannot be read, or has another size.
        """
        assert self.record.stored_shape is not None
        return read_as(path, self.record.stored_shape)

    def preparation(self) -> Preparation:
        """How one image file becomes what the network takes."""
        record = self.record
        operations = build(record.preprocessing, self.config.data.operations())
        return Preparation(tuple(operations), record.image_shape, record.stored_shape)


def open_run(
    folder: str | Path,
    checkpoint: str = "best",
    *,
    network: nn.Layer | None = None,
    average: bool | None = None,
    device: str = "auto",
) -> OpenedRun:
    """The network of a run, with its classes and how images are prepared for it.

    Nothing of what it was trained on need be there.

    Args:
        folder: of the run.
        checkpoint: ``best``, ``last``, or ``epoch-5`` where that is kept.
        network: for a run of ``model: {name: given}``: a new one of the same kind, whose weights
            are replaced.
        average: whether to take the averaged weights; by default where the best epoch was chosen
            by them.
        device: ``auto``, ``cpu``, ``gpu`` or ``gpu:N``; need not be the training's.

    Raises:
        UserError: no such run or checkpoint, a damaged one, or a network that it does not fit.
    """
    chosen = choose(expand(folder), checkpoint, average, [WEIGHTS, CONFIG, DATA, STATE])
    found, config, name = chosen.folder, chosen.config, chosen.weights
    record = DataRecord.read(found / DATA)
    if name != WEIGHTS:  # whose checksum was compared
        find_checkpoint(found, [name])
    device = choose_device(device)
    classes = record.contents.classes
    if network is None:
        network = config.model.build(len(classes), record.image_shape[0])
    elif paddle.is_compiled_with_cuda():
        network.to(device)  # it may have been made on another one
    set_weights(network, read_tensors(found / name), found / name)
    network.eval()
    use_backend(network, choose_backend("auto", device, network=network))
    return OpenedRun(found, config, network, classes, record, name == AVERAGE)
