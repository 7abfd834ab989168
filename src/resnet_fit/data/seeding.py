"""Random numbers that depend only on seed, epoch and batch, so that a run resumes exactly."""

from __future__ import annotations

import numpy as np


def generator(seed: int, epoch: int, *stream: int) -> np.random.Generator:
    """Return the generator for one random stream of an epoch.

    Without ``stream`` it is for the order of the epoch, with ``batch`` for a batch, with ``batch,
    row`` for an image.
    """
    # numpy pads a seed with zeros: without the 1, batch 0 would have the stream of the order.
    return np.random.default_rng([seed, epoch, *(s + 1 for s in stream)])


def phases(seed: int, epoch: int, count: int) -> np.ndarray:
    """Return a phase in [0, 1) for each of ``count`` images; it moves by 0.5 each epoch.

    A phase below 0.5 in one epoch is above it in the next.
    """
    # 2**32 - 2 can never be a batch index, so this random stream is unique.
    first = generator(seed, 0, 2**32 - 2).random(count)
    return (first + 0.5 * (epoch % 2)) % 1
