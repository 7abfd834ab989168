"""Whether an exported network says what the network says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# How much a probability may differ, as a share of the larger one. Logits are rounded to a millionth
# of their size, and a probability changes by as much of itself as its logit changes: where logits
# are above 10, as of a network that was hardly trained, more is allowed in proportion.
TOLERANCE = 1e-4
TOLERANCE_OF_LOGITS = 1e-5
# Differences of smaller probabilities are taken as a share of this: they may have been rounded to
# zero, and Paddle's softmax on a CPU gives nothing below exp(-64).
SMALLEST = 1e-20


@dataclass(frozen=True)
class Agreement:
    """An exported network beside the network itself, on the same images.

    Attributes:
        images: how many there were.
        difference: the largest of two probabilities, as a share of the larger one.
        allowed: how large it may be.
        same: on how many images both have the same likeliest class; where the network finds two
            equally likely, either will do.
        right: images that the network classifies right.
        right_exported: images that the exported one does.
    """

    images: int
    difference: float
    allowed: float
    same: int
    right: int
    right_exported: int

    @property
    def holds(self) -> bool:
        """False as well where numbers are NaN."""
        return self.difference <= self.allowed and self.same == self.images

    @property
    def points_lost(self) -> float:
        """Accuracy of the network less that of the exported one, in points of a hundred."""
        return 100 * (self.right - self.right_exported) / self.images


def compare(
    logits: np.ndarray, exported: np.ndarray, labels: np.ndarray, each_class: bool
) -> Agreement:
    """Compare a network's logits with an exported network's probabilities, both ``[N, classes]``.

    Args:
        labels: int ``[N]``.
        each_class: whether probabilities are of each class by itself; see
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
    return np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
