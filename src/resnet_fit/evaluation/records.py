"""VisualDL records of an evaluation: curves, the confusion matrix, mistakes, features."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from resnet_fit.callbacks.records import Records
from resnet_fit.evaluation.charts import MOST_DRAWN, confusion_picture
from resnet_fit.evaluation.evaluation import Evaluation
from resnet_fit.evaluation.figures import confusion_matrix, worst_classes
from resnet_fit.evaluation.predictions import Predictions
from resnet_fit.files import readable

# How many classes have their own curves; of more classes the worst ones.
SHOWN_CURVES = 20
# Up to this many scores (images x classes) there is also a curve of all classes together.
MOST_SCORES = 10_000_000
# Points of a curve: half are evenly spaced on one axis and half on the other.
POINTS = 128
SHOWN_MISTAKES = 24
# Limits for the embedding projector, which computes in the browser: numbers, and images.
PROJECTED_NUMBERS, PROJECTED_IMAGES = 500_000, 1000


def write_records(evaluation: Evaluation, folder: Path) -> None:
    """Write the records to a file in ``folder``, where VisualDL finds them.

    Raises:
        OSError: a record could not be written; it names the file.
        RunFailed: VisualDL cannot be imported.
    """
    step = evaluation.source["epoch"]
    with _writer(folder) as writer:
        _add_curves(writer, evaluation, step)
        found = evaluation.predictions
        if len(found.classes) <= MOST_DRAWN:
            names = tuple(map(readable, found.classes))
            picture = confusion_picture(confusion_matrix(found), names)
            writer.add_image("confusion_matrix", picture, step)
        _add_mistakes(writer, evaluation, step)
        _add_features(writer, found)


def _add_curves(writer: Any, evaluation: Evaluation, step: int) -> None:
    """Add precision-recall and ROC curves, of all classes together and of single classes.

    VisualDL's functions that compute curves fail or give wrong ones, so the points are given.
    """
    from visualdl.component.base_component import pr_curve_raw, roc_curve_raw

    found = evaluation.predictions
    curves = {}
    if found.probabilities.size <= MOST_SCORES:
        every = np.arange(len(found.classes)) == found.labels[:, None]
        curves["all classes"] = curve_points(every.reshape(-1), found.probabilities.reshape(-1))
    tags = tags_of(found.classes)
    for index in _chosen_classes(evaluation):
        curves[tags[index]] = curve_points(found.labels == index, found.probabilities[:, index])
    now = round(time.time() * 1000)
    for name, curve in curves.items():
        if curve is None:
            continue
        tp, fp, tn, fn = counts = [values.tolist() for values in curve]
        precision = [t / (t + f) for t, f in zip(tp, fp, strict=True)]
        recall = [t / (t + f) for t, f in zip(tp, fn, strict=True)]
        false = [f / (f + t) for f, t in zip(fp, tn, strict=True)]
        file = writer._get_file_writer()
        # VisualDL finds a tag's page by the tag alone, so the two kinds need different tags.
        file.add_record(
            pr_curve_raw(f"precision_recall/{name}", *counts, precision, recall, step, now)
        )
        file.add_record(roc_curve_raw(f"roc/{name}", *counts, recall, false, step, now))


def _chosen_classes(evaluation: Evaluation) -> list[int]:
    classes = evaluation.classes
    if len(classes) <= SHOWN_CURVES:
        return list(range(len(classes)))
    worst = {c.name for c in worst_classes(classes, SHOWN_CURVES)}
    return [i for i, c in enumerate(classes) if c.name in worst]


def curve_points(right: np.ndarray, scores: np.ndarray) -> np.ndarray | None:
    """True and false positives and negatives at rising thresholds: int64 ``[4, at most 129]``.

    Args:
        right: bool ``[N]``, whether an image is of the class.
        scores: ``[N]``; an image is predicted positive if its score reaches the threshold.

    Returns:
        ``tp, fp, tn, fn``; None if all images are of the class, or none.
    """
    positives, negatives = int(right.sum()), int((~right).sum())
    if not positives or not negatives:
        return None
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.diff(scores[order], append=-1.0))  # of each run of equal scores
    tp = np.cumsum(right[order])[last]
    fp = last + 1 - tp
    share = np.linspace(0, 1, POINTS // 2)
    places = [np.searchsorted(tp / positives, share), np.searchsorted(fp / negatives, share)]
    kept = np.unique(np.concatenate([*places, [len(last) - 1]]))[::-1]
    tp, fp = tp[kept], fp[kept]
    return np.stack([tp, fp, negatives - fp, positives - tp])


def tags_of(names: tuple[str, ...]) -> list[str]:
    """Class names for VisualDL's tags, in which a slash makes groups and % is refused.

    A changed name gets the class's index, so that tags stay unique.
    """
    tags = [readable(name).replace("/", "_").replace("%", "_") for name in names]
    pairs = enumerate(zip(tags, names, strict=True))
    return [tag if tag == name else f"{tag} ({i})" for i, (tag, name) in pairs]


def _add_mistakes(writer: Any, evaluation: Evaluation, step: int) -> None:
    pictures, found = evaluation.mistake_pictures, evaluation.predictions
    if pictures is None:
        return
    tags = tags_of(found.classes)
    for place, index in enumerate(evaluation.mistakes[:SHOWN_MISTAKES].tolist()):
        label, taken = tags[found.labels[index]], tags[found.predicted[index]]
        both = np.concatenate([pictures.images[place], pictures.heat[place]], axis=1)
        writer.add_image(f"mistakes/{place + 1:02} {label} taken for {taken}", both, step)


def _add_features(writer: Any, found: Predictions) -> None:
    """Add inputs of the head for the embedding projector, stratified by class."""
    if found.features is None:
        return
    most = min(PROJECTED_IMAGES, max(1, PROJECTED_NUMBERS // found.features.shape[1]))
    by_class = np.argsort(found.labels, kind="stable")
    rows = by_class[np.unique(np.linspace(0, len(by_class) - 1, most).astype(int))]
    names = [readable(name) for name in found.classes]
    columns = [
        [names[i] for i in found.labels[rows]],
        [names[i] for i in found.predicted[rows]],
        ["wrong" if wrong else "right" for wrong in found.wrong[rows]],
    ]
    header = ["label", "prediction", "right or wrong"]
    writer.add_embeddings("features", found.features[rows].tolist(), columns, header)


@contextmanager
def _writer(folder: Path) -> Iterator[Any]:
    with closing(Records(folder)) as records:
        yield records.writer
        records.flush()
