"""Random numbers that depend on where a run is, not on how it got there."""

from __future__ import annotations

import numpy as np


def generator(seed: int, epoch: int, *stream: int) -> np.random.Generator:
    """Return the generator of one stream of an epoch's random numbers.

    Without ``stream`` it is the order's, ``batch`` makes it a batch's, ``batch, row`` an image's.
    """
    # numpy pads a seed with zeros: without the 1, batch 0 would repeat the numbers of the order.
    return np.random.default_rng([seed, epoch, *(s + 1 for s in stream)])
