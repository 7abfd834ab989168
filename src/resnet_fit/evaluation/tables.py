"""An evaluation as files for other programs: ``evaluation.json`` and ``predictions.csv``."""

from __future__ import annotations

import csv
from dataclasses import asdict
from pathlib import Path
from typing import Any

from resnet_fit.evaluation.evaluation import Evaluation
from resnet_fit.evaluation.figures import as_rows, macro_means
from resnet_fit.files import readable

# Up to this many classes predictions.csv has the probability of each.
MOST_COLUMNS = 1000
# A spreadsheet takes text that begins with one of these for a formula.
FORMULA = ("=", "+", "-", "@")


def as_document(evaluation: Evaluation) -> dict[str, Any]:
    """The content of ``evaluation.json``."""
    found = evaluation.predictions
    calibration = asdict(evaluation.calibration)
    return {
        "source": evaluation.source,
        "images": len(found),
        "figures": evaluation.figures,
        "macro": macro_means(evaluation.classes),
        "calibration": calibration | {"bins": as_rows(evaluation.calibration.bins)},
        "classes": as_rows(evaluation.classes),
        "confusions": as_rows(evaluation.confusions),
        "surest_mistakes": [image_row(evaluation, i) for i in evaluation.mistakes.tolist()],
        "suspected_labels": suspect_rows(evaluation),
        "speed": {
            "images_per_second_with_reading": len(found) / found.seconds,
            "with_mirror_images": found.mirrored is not None,
            "network": evaluation.speed,
        },
    }


def image_row(evaluation: Evaluation, index: int) -> dict[str, Any]:
    """Name, label, prediction and probabilities of one image."""
    found = evaluation.predictions
    label, taken = int(found.labels[index]), int(found.predicted[index])
    return {
        "image": found.names[index],
        "label": found.classes[label],
        "prediction": found.classes[taken],
        "probability": float(found.probabilities[index, taken]),
        "probability_of_label": float(found.probabilities[index, label]),
    }


def suspect_rows(evaluation: Evaluation, most: int | None = None) -> list[dict[str, Any]]:
    """The same of so many suspects, with the class that each looks like and its probability."""
    found = evaluation.predictions
    return [
        image_row(evaluation, image)
        | {
            "looks_like": found.classes[class_],
            "probability_of_looks_like": float(found.probabilities[image, class_]),
        }
        for image, class_ in zip(
            evaluation.suspects[:most].tolist(), evaluation.look_like[:most].tolist(), strict=True
        )
    ]


def write_predictions(evaluation: Evaluation, file: Path) -> None:
    """Write a row for each image: its name, label, prediction and the prediction's probability.

    With up to 1,000 classes a column ``p(<class>)`` follows for each. Text that a spreadsheet would
    take for a formula gets an apostrophe before it; bytes that are not UTF-8 become ``\\xff``.
    """
    found = evaluation.predictions
    classes = [cell(name) for name in found.classes]
    columns = [f"p({readable(name)})" for name in found.classes]
    with_all = len(classes) <= MOST_COLUMNS
    with open(file, "w", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream)
        header = ["image", "label", "prediction", "probability"]
        rows.writerow(header + (columns if with_all else []))
        for i in range(len(found)):
            label, taken = found.labels[i], found.predicted[i]
            head = [cell(found.names[i]), classes[label], classes[taken]]
            numbers = [found.confidence[i], *(found.probabilities[i] if with_all else ())]
            rows.writerow(head + [_written(number) for number in numbers])


def cell(text: str) -> str:
    """Text that a spreadsheet does not take for a formula; numbers may begin with a sign."""
    text = readable(text)
    return f"'{text}" if text.startswith(FORMULA) and not _is_number(text) else text


def _written(probability: float) -> str:
    """A probability with enough digits that rows add up to 1 within 1e-8."""
    return f"{probability:.9g}" if probability > 1e-6 else f"{probability:.4g}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
