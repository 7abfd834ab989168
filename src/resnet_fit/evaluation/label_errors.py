"""Labels that are likely to be wrong, by confident learning (Northcutt et al. 2021)."""

from __future__ import annotations

import numpy as np

from resnet_fit.evaluation.figures import own


def suspected_labels(
    probabilities: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Images whose label is likely to be wrong, the most likely first, and what they look like.

    The threshold of a class is its mean probability over the images with this label. Of the classes
    that reach theirs, an image looks like the most probable one; an image that looks like another
    class than its label is off the diagonal of the confident joint (section 3.1). It is suspected
    if it is misclassified as well. Suspects are sorted by the probability of the label minus that
    of the class that they look like.

    Args:
        probabilities: ``[N, C]`` of images that the network was not trained on.
        labels: int64 ``[N]``.

    Returns:
        int64 indices of images, and the class that each looks like.
    """
    classes = probabilities.shape[1]
    counts = np.bincount(labels, minlength=classes)
    sums = np.bincount(labels, own(probabilities, labels), classes)
    # A class without images has no threshold.
    threshold = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
    seen = np.where(probabilities >= threshold, probabilities, -1.0)
    best = seen.argmax(axis=1)
    likeliest = probabilities.argmax(axis=1)
    suspected = np.flatnonzero((seen.max(axis=1) >= 0) & (best != labels) & (likeliest != labels))
    margin = own(probabilities, labels) - own(probabilities, best)
    suspected = suspected[np.argsort(margin[suspected], kind="stable")]
    return suspected, best[suspected]
