"""Calibration: whether a network's confidence matches its accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq

from resnet_fit.evaluation.figures import own
from resnet_fit.evaluation.predictions import Predictions, log_softmax

BINS = 15
# The search range of the temperature.
COLDEST, HOTTEST = 0.01, 100.0
# Images in one step of a computation, to limit memory.
BLOCK = 4096


class Bin(NamedTuple):
    """Images whose confidence lies in ``(low, high]``.

    Attributes:
        confidence: their mean confidence; None without images.
        accuracy: the share of them that are classified right; None without images.
    """

    low: float
    high: float
    images: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Calibration:
    """Confidence compared with accuracy.

    Attributes:
        ece: the expected calibration error: the mean of abs(confidence - accuracy) over bins,
            weighted by their images (Guo et al. 2017, section 2).
        confidence: the mean confidence.
        temperature: logits divided by it have the lowest loss on these images (section 4.2); above
            1 for an overconfident network. None if it does not lie between 0.01 and 100, for
            instance if every image is right.
        loss_at_temperature, ece_at_temperature: of the logits divided by it.
    """

    bins: list[Bin]
    ece: float
    confidence: float
    temperature: float | None
    loss_at_temperature: float | None
    ece_at_temperature: float | None


def calibrate(predictions: Predictions) -> Calibration:
    """Compare confidence with accuracy, in 15 bins of equal width."""
    right = ~predictions.wrong
    bins = reliability(predictions.confidence, right)
    temperature = best_temperature(predictions.logits, predictions.labels)
    loss = ece = None
    if temperature is not None:
        cooled = log_softmax(predictions.logits / np.float64(temperature))
        loss = float(-own(cooled, predictions.labels).mean())
        ece = expected_error(reliability(np.exp(cooled.max(axis=1)), right))
    confidence = float(predictions.confidence.mean())
    return Calibration(bins, expected_error(bins), confidence, temperature, loss, ece)


def reliability(confidence: np.ndarray, right: np.ndarray) -> list[Bin]:
    """Confidence and accuracy of the images in each bin.

    Args:
        confidence: ``[N]``, 0 to 1.
        right: bool ``[N]``.
    """
    edges = np.linspace(0, 1, BINS + 1)
    place = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    counts = np.bincount(place, minlength=BINS)
    sums = [np.bincount(place, weights, BINS) for weights in (confidence, right)]
    return [
        Bin(
            float(edges[i]),
            float(edges[i + 1]),
            int(n),
            *(float(total[i] / n) if n else None for total in sums),
        )
        for i, n in enumerate(counts)
    ]


def expected_error(bins: list[Bin]) -> float:
    """The expected calibration error of these bins."""
    total = sum(b.images for b in bins)
    gaps = (b.images * abs((b.confidence or 0.0) - (b.accuracy or 0.0)) for b in bins)
    return sum(gaps) / total


def best_temperature(logits: np.ndarray, labels: np.ndarray) -> float | None:
    """The temperature with the lowest cross entropy; None if there is none in the search range.

    The loss is convex in 1 / temperature, so its derivative has one root: the mean over images of
    the expected logit under the softmax minus the logit of the label.
    """
    wanted = own(logits, labels).mean(dtype=np.float64)

    def slope(log_inverse: float) -> float:
        total = 0.0
        for start in range(0, len(logits), BLOCK):  # to limit memory
            block = logits[start : start + BLOCK].astype(np.float64)
            total += float((np.exp(log_softmax(block * np.exp(log_inverse))) * block).sum())
        return float(total / len(logits) - wanted)

    low, high = -np.log(HOTTEST), -np.log(COLDEST)
    if slope(low) >= 0 or slope(high) <= 0:
        return None
    return float(np.exp(-brentq(slope, low, high, xtol=1e-4)))
