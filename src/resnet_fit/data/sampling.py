"""Samplers: which images an epoch has, and in which order.

A sampler takes the labels of a data set and a generator, and returns as many indices into it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Sampler = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def in_order(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Every image once, in data set order."""
    return np.arange(len(labels))


def shuffled(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Every image once, in random order."""
    return rng.permutation(len(labels))


def balanced(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """All classes that have images equally often, in random order.

    Within a class an image is repeated only after all others were drawn.
    """
    present = np.unique(labels)
    quotas = np.full(len(present), len(labels) // len(present))
    quotas[rng.permutation(len(present))[: len(labels) % len(present)]] += 1
    chosen = [
        _cycled(np.flatnonzero(labels == label), quota, rng)
        for label, quota in zip(present, quotas, strict=True)
    ]
    return rng.permutation(np.concatenate(chosen))


def repeated(sampler: Sampler, times: int) -> Sampler:
    """Each image ``times`` times in a row, so that a batch has several augmentations of it.

    The length of an epoch stays the same, so only the first images of ``sampler`` are used (Hoffer
    et al. 2019, "Augment your batch"; in this form Berman et al. 2019, "MultiGrain").
    """

    def sample(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return np.repeat(sampler(labels, rng), times)[: len(labels)]

    return sample


def _cycled(indices: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    rounds = [rng.permutation(indices) for _ in range(-(-n // len(indices)))]
    return np.concatenate(rounds)[:n] if rounds else indices[:0]
