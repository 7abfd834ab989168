"""Evaluates a network on images that it was not trained on."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from resnet_fit.data.dataset import ArrayDataset, Dataset
from resnet_fit.errors import UserError
from resnet_fit.evaluation import figures
from resnet_fit.evaluation.calibration import Calibration, calibrate
from resnet_fit.evaluation.figures import ClassFigures, Confusion
from resnet_fit.evaluation.label_errors import suspected_labels
from resnet_fit.evaluation.pictures import Pictures, take_pictures
from resnet_fit.evaluation.predictions import Predictions, Progress, predict
from resnet_fit.evaluation.source import describe_source
from resnet_fit.evaluation.timing import time_network
from resnet_fit.runs.held_out import held_out
from resnet_fit.runs.open import OpenedRun

# Each image has two pictures: 192 in total.
SHOWN_MISTAKES, SHOWN_SUSPECTS = 48, 48
# More confusions are in predictions.csv.
KEPT_CONFUSIONS = 100


@dataclass(frozen=True)
class Evaluation:
    """The results of evaluating a network on one data set.

    Attributes:
        source: network, data and environment: see `describe_source`.
        predictions: of every image.
        figures: ``top1``, its 95 % interval ``top1_interval``, ``top5`` if there are more than 5
            classes, ``loss``, and with ``flip`` the same of mirrored images as ``flip_top1`` etc.
        classes: metrics of each class.
        confusions: the most frequent first.
        mistakes: indices of misclassified images with pictures, the most confident first.
        suspects: indices of images whose label is likely to be wrong, the most likely first.
        look_like: the class that each suspect looks like.
        suspect_pictures: pictures of the first suspects.
        speed: time of the network by batch size.
    """

    source: dict[str, Any]
    predictions: Predictions
    figures: dict[str, Any]
    classes: list[ClassFigures]
    confusions: list[Confusion]
    calibration: Calibration
    mistakes: np.ndarray
    mistake_pictures: Pictures | None
    suspects: np.ndarray
    look_like: np.ndarray
    suspect_pictures: Pictures | None
    speed: list[dict[str, float]]


def evaluate(
    run: OpenedRun,
    data: Dataset | str | Path | None = None,
    *,
    flip: bool = False,
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluate a network on images and analyse its mistakes.

    Args:
        run: from `open_run`.
        data: a data set with the run's classes, or a folder of class folders; by default the run's
            test set, or without one the images that its epochs were evaluated on.
        flip: also evaluate the mean of each image and its mirror image, as separate figures.
        progress: called with the number of images done and the total.

    Raises:
        UserError: the images are missing, unreadable, or do not fit the network.
        RunFailed: the network's outputs are NaN or infinite.
    """
    if data is None or isinstance(data, str | Path):
        dataset = held_out(run, data)
        _check_classes(run, dataset)
    else:
        _check_classes(run, data)
        dataset = _as_of_the_run(run, data)
    source = describe_source(run, data)
    size = min(run.config.data.eval_batch_size, max(1, len(dataset)))
    found = predict(run, dataset, size, flip=flip, progress=progress)
    mistakes = figures.surest_mistakes(found, SHOWN_MISTAKES)
    suspects, look_like = suspected_labels(found.probabilities, found.labels)

    def pictures(which: np.ndarray, classes: np.ndarray) -> Pictures | None:
        return take_pictures(run, dataset.take(which), classes)

    return Evaluation(
        source,
        found,
        _figures(found),
        figures.per_class(found),
        figures.top_confusions(found, KEPT_CONFUSIONS),
        calibrate(found),
        mistakes,
        pictures(mistakes, found.predicted[mistakes]),
        suspects,
        look_like,
        pictures(suspects[:SHOWN_SUSPECTS], look_like[:SHOWN_SUSPECTS]),
        time_network(run, (1, size)),
    )


def _check_classes(run: OpenedRun, dataset: Dataset) -> None:
    """Raise UserError with the first class that is not the network's."""
    for index, (ours, networks) in enumerate(zip_longest(dataset.classes, run.classes)):
        if ours is None or networks is None:
            raise UserError(
                f"data: {len(dataset.classes)} classes, the network has {len(run.classes)}"
            )
        if ours != networks:
            raise UserError(f"data: class {index} is '{ours}', the network's is '{networks}'")


def _as_of_the_run(run: OpenedRun, dataset: Dataset) -> Dataset:
    """A program's images as the kind of data set that the network was trained on.

    Raises:
        UserError: they are of another kind or size.
    """
    if isinstance(dataset, ArrayDataset):
        run.dataset(dataset.images, dataset.labels)  # refuses another kind or size
        return dataset  # with its names
    if run.record.stored_shape is None:
        return dataset
    return run.dataset(dataset.paths, dataset.labels)


def _figures(found: Predictions) -> dict[str, Any]:
    values: dict[str, Any] = figures.main_figures(found.logits, found.labels)
    values["top1_interval"] = figures.interval(values["top1"], len(found))
    if found.mirrored is not None:
        mirrored = figures.main_figures(found.mirrored, found.labels)
        values |= {f"flip_{name}": value for name, value in mirrored.items()}
    return values
