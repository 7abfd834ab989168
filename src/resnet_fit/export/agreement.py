"""Comparison of an exported network with the original."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from resnet_fit.evaluation.predictions import log_softmax

# The largest relative difference of two probabilities. Logits have a relative rounding error of
# about 1e-6, and an absolute change of a logit is a relative change of its probability. So logits
# above 10, as of a network that was hardly trained, get a tolerance in proportion.
TOLERANCE = 1e-4
TOLERANCE_OF_LOGITS = 1e-5
# Smaller probabilities are compared relative to this: they may be rounded to zero, and Paddle's
# softmax on a CPU gives nothing below exp(-64).
SMALLEST = 1e-20


@dataclass(frozen=True)
class Agreement:
    """An exported network compared with the original, on the same images.

    Attributes:
        images: the number of images.
        difference: the largest relative difference of two probabilities.
        allowed: its tolerance.
        same: images on which both have the same most probable class; if two are equally probable
            for the original, either counts.
        right: images that the original classifies correctly.
        right_exported: images that the exported network classifies correctly.
    """

    images: int
    difference: float
    allowed: float
    same: int
    right: int
    right_exported: int

    @property
    def holds(self) -> bool:
        """Whether both agree; False for NaN."""
        return self.difference <= self.allowed and self.same == self.images

    @property
    def points_lost(self) -> float:
        """Accuracy of the original minus that of the exported network, in percentage points."""
        return 100 * (self.right - self.right_exported) / self.images


def compare(
    logits: np.ndarray, exported: np.ndarray, labels: np.ndarray, each_class: bool
) -> Agreement:
    """Compare a network's logits with an exported network's probabilities, both ``[N, classes]``.

    Args:
        labels: int ``[N]``.
        each_class: whether probabilities are a sigmoid for each class; see
            `resnet_fit.export.graph.Graph`.
    """
    expected = probabilities(logits, each_class)
    allowed = max(TOLERANCE, TOLERANCE_OF_LOGITS * float(np.abs(logits).max()))
    larger = np.maximum(np.maximum(expected, exported), SMALLEST)
    difference = float((np.abs(expected - exported) / larger).max())
    top, top_exported = logits.argmax(axis=1), exported.argmax(axis=1)
    best, chosen = (np.take_along_axis(expected, t[:, None], 1)[:, 0] for t in (top, top_exported))
    same = (top == top_exported) | (best - chosen <= allowed * best)
    return Agreement(
        images=len(labels),
        difference=difference,
        allowed=allowed,
        same=int(same.sum()),
        right=int((top == labels).sum()),
        right_exported=int((top_exported == labels).sum()),
    )


def probabilities(logits: np.ndarray, each_class: bool) -> np.ndarray:
    """Softmax or sigmoid in float64, independent of Paddle."""
    logits = logits.astype(np.float64)
    if each_class:
        return np.exp(-np.logaddexp(0, -logits))
    return np.exp(log_softmax(logits))
