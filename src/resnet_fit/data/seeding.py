"""Random numbers that depend on where a run is, not on how it got there."""

from __future__ import annotations

import numpy as np


def generator(seed: int, epoch: int, *stream: int) -> np.random.Generator:
    """Return the generator of one stream of an epoch's random numbers.

    Without ``stream`` it is the order's, ``batch`` makes it a batch's, ``batch, row`` an image's.
    """
    # numpy pads a seed with zeros: without the 1, batch 0 would repeat the numbers of the order.
    return np.random.default_rng([seed, epoch, *(s + 1 for s in stream)])


def phases(seed: int, epoch: int, count: int) -> np.ndarray:
    """Return a number in [0, 1) for each of ``count`` images that moves on by a half each epoch.

    What is below a half in one epoch is above it in the next.
    """
    # The order of an epoch has no more streams than an epoch has batches.
    first = generator(seed, 0, 2**32 - 2).random(count)
    return (first + 0.5 * (epoch % 2)) % 1
