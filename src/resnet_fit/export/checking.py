"""Verifies exported networks against the network of the run, on images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import paddle

from resnet_fit.data.dataset import ArrayDataset, Dataset, subset
from resnet_fit.data.loading import ArrayLoader, FileLoader, Loader
from resnet_fit.errors import UserError
from resnet_fit.export.agreement import Agreement, compare
from resnet_fit.export.metadata import Metadata
from resnet_fit.export.running import Running
from resnet_fit.runs.held_out import held_out, trained_on
from resnet_fit.runs.open import OpenedRun

# Images for the check, for calibration, and in a batch.
CHECKED, CALIBRATED, BATCH = 1000, 256, 50


def images_to_check(run: OpenedRun, folder: Path | None) -> Dataset:
    """Held-out images, at most `CHECKED`.

    Raises:
        UserError: they are missing.
    """
    try:
        return subset(held_out(run, folder), CHECKED)
    except UserError as error:
        if folder is not None:
            raise
        raise UserError(
            f"{error}; an export is checked on held-out images: give others with --data FOLDER"
        ) from None


def images_to_calibrate(run: OpenedRun, metadata: Metadata) -> np.ndarray:
    """Training images as input of the exported network, at most `CALIBRATED`.

    Raises:
        UserError: they are missing.
    """
    try:
        dataset = subset(trained_on(run), CALIBRATED)
    except UserError as error:
        raise UserError(f"{error}; --int8 needs training images to calibrate with") from None
    return np.concatenate([images for images, _ in prepared(dataset, metadata)])


def prepared(dataset: Dataset, metadata: Metadata) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches of images as input of an exported network, with their labels.

    Raises:
        UserError: the network takes uint8, but an operation gives another dtype.
    """
    for images, labels in _loader(dataset, metadata):
        if metadata.input == "uint8":
            if images.dtype != np.uint8:
                raise UserError(
                    "augmentation.eval: the operations before normalize do not give whole pixel "
                    "values, which the exported network needs; export with --input float32"
                )
            images = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
        yield images, labels


def _loader(dataset: Dataset, metadata: Metadata) -> Loader:
    operations = metadata.operations()
    if isinstance(dataset, ArrayDataset):
        return ArrayLoader(dataset, BATCH, operations)
    return FileLoader(dataset, BATCH, operations, workers=0)


def check(
    run: OpenedRun, metadata: Metadata, dataset: Dataset, sides: Mapping[str, Running]
) -> dict[str, Agreement]:
    """Compare exported networks with the network of a run.

    Images are preprocessed as in the training's evaluations for the run's network, but by the
    metadata for the exported ones, so that a mistake in the metadata is found.

    Args:
        sides: exported networks by name.

    Raises:
        UserError: an image cannot be read.
        RunFailed: a file cannot be run.
    """
    with paddle.no_grad():
        logits = np.concatenate(
            [
                run.network(paddle.to_tensor(images)).numpy()
                for images, _ in run.loader(dataset, BATCH)
            ]
        )
    exported: dict[str, list[np.ndarray]] = {name: [] for name in sides}
    for images, _ in prepared(dataset, metadata):
        for name, side in sides.items():
            exported[name].append(side.run(images)[0])
    each_class = run.judges_each_class
    return {
        name: compare(logits, np.concatenate(given), dataset.labels, each_class)
        for name, given in exported.items()
    }
