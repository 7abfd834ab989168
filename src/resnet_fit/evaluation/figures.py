"""Metrics of a classifier: accuracy, loss, and precision, recall and F1 of each class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.metrics import precision_recall_fscore_support

from resnet_fit.evaluation.predictions import Predictions, log_softmax


def main_figures(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """``top1``, ``top5`` if there are more than 5 classes, and ``loss``, the cross entropy.

    Args:
        logits: ``[N, C]``.
        labels: int64 ``[N]``.
    """
    figures = {"top1": top_k(logits, labels, 1)}
    if logits.shape[1] > 5:
        figures["top5"] = top_k(logits, labels, 5)
    figures["loss"] = float(-own(log_softmax(logits), labels).mean())
    return figures


def top_k(logits: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Share of images whose label is among the ``k`` highest logits; ties go to the first class."""
    mine = own(logits, labels)[:, None]
    before = (logits > mine) | ((logits == mine) & (np.arange(logits.shape[1]) < labels[:, None]))
    return float(np.mean(before.sum(axis=1) < k))


def own(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The value of each row at its label, ``[N]``."""
    return values[np.arange(len(labels)), labels]


def interval(share: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a share that was measured on ``count`` images (Wilson 1927)."""
    z = 1.959964
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2) / (1 + z * z / count)
    return max(0.0, middle - half), min(1.0, middle + half)


class ClassFigures(NamedTuple):
    """Metrics of one class; an undefined one, such as the recall without images, is None.

    Attributes:
        images: of this class.
        predicted: images that were classified as it.
    """

    name: str
    images: int
    predicted: int
    precision: float | None
    recall: float | None
    f1: float | None


def per_class(predictions: Predictions) -> list[ClassFigures]:
    """Metrics of every class, in the order of the classes."""
    count = len(predictions.classes)
    columns = precision_recall_fscore_support(
        predictions.labels, predictions.predicted, labels=range(count), zero_division=np.nan
    )
    precision, recall, f1 = ([_number(v) for v in values.tolist()] for values in columns[:3])
    taken = np.bincount(predictions.predicted, minlength=count).tolist()
    rows = zip(predictions.classes, columns[3].tolist(), taken, precision, recall, f1, strict=True)
    return [ClassFigures(*row) for row in rows]


def macro_means(classes: Sequence[ClassFigures]) -> dict[str, float | None]:
    """Means over the classes that have images; a class that was never predicted counts as 0."""
    there = [c for c in classes if c.images]
    return {
        name: float(np.mean([getattr(c, name) or 0.0 for c in there]))
        for name in ("precision", "recall", "f1")
    }


def worst_classes(classes: Sequence[ClassFigures], most: int) -> list[ClassFigures]:
    """The classes with the lowest F1 below 1, the lowest first; only those with images."""
    flawed = [c for c in classes if c.images and (c.f1 or 0.0) < 1]
    return sorted(flawed, key=lambda c: c.f1 or 0.0)[:most]


class Confusion(NamedTuple):
    """Images of one class that were classified as another."""

    label: str
    prediction: str
    images: int
    share: float
    """Relative to the images of the class."""


def confusion_matrix(predictions: Predictions) -> np.ndarray:
    """int64 ``[C, C]``: images with the row's label and the column's prediction."""
    count = len(predictions.classes)
    pairs = predictions.labels * count + predictions.predicted
    return np.bincount(pairs, minlength=count * count).reshape(count, count)


def top_confusions(predictions: Predictions, most: int) -> list[Confusion]:
    """The most frequent confusions; of equal counts the smaller class comes first."""
    wrong, classes = predictions.wrong, predictions.classes
    support = np.bincount(predictions.labels, minlength=len(classes))
    pairs = np.stack([predictions.labels[wrong], predictions.predicted[wrong]], axis=1)
    found, counts = np.unique(pairs, axis=0, return_counts=True)
    rows = [
        Confusion(classes[label], classes[taken], int(n), float(n / support[label]))
        for (label, taken), n in zip(found.tolist(), counts.tolist(), strict=True)
    ]
    return sorted(rows, key=lambda row: (-row.images, -row.share))[:most]


def surest_mistakes(predictions: Predictions, most: int) -> np.ndarray:
    """Indices of the misclassified images with the highest confidence, the highest first."""
    mistakes = np.flatnonzero(predictions.wrong)
    order = np.argsort(-predictions.confidence[mistakes], kind="stable")
    return mistakes[order][:most]


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def as_rows(rows: Sequence[Any]) -> list[dict[str, Any]]:
    """Named tuples as dictionaries, for JSON."""
    return [row._asdict() for row in rows]
