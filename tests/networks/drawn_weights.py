"""Weights and images that two libraries can draw alike, so that no weights need to be stored.

Each tensor comes from a generator seeded by the CRC-32 of its name in torch's naming, in torch's
layout, uniform in a range that keeps activations near one through 152 layers.
"""

import zlib

import numpy as np


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """One tensor by its torch name."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    low, high = _range(name, shape)
    return np.asarray(low + (high - low) * rng.random(shape, dtype=np.float32), np.float32)


def images(pixels: int) -> np.ndarray:
    """Two images ``[2, 3, pixels, pixels]`` of noise between -1 and 1."""
    return np.random.default_rng(0).uniform(-1, 1, (2, 3, pixels, pixels)).astype(np.float32)


def _range(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    if name.endswith("running_var"):
        return 0.5, 1.5
    if len(shape) == 1:
        return (0.3, 0.9) if name.endswith(".weight") else (-0.2, 0.2)
    bound = (6 / np.prod(shape[1:])) ** 0.5
    return -bound, bound
