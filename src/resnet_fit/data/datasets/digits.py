"""scikit-learn's handwritten digits: nothing to download."""

from __future__ import annotations

import numpy as np

from resnet_fit.config.registry import part
from resnet_fit.data.dataset import ArrayDataset, split
from resnet_fit.data.datasets.data import Data


@part("data", "digits")
class Digits(Data):
    """scikit-learn's handwritten digits, ``[1, 8, 8]``: 1,437 to train on, 360 held out."""

    def load(self) -> tuple[ArrayDataset, ArrayDataset]:
        return digits()


def digits() -> tuple[ArrayDataset, ArrayDataset]:
    """Return scikit-learn's handwritten digits, ``[1, 8, 8]``: 1,437 to train on, 360 to test.

    The levels 0..16 are scaled to 0..255. The split is stratified and always the same.
    """
    from sklearn.datasets import load_digits

    raw = load_digits()
    images = np.rint(raw.images * (255 / 16)).astype(np.uint8)[:, None]
    return split(ArrayDataset(images, raw.target, tuple("0123456789")), 360 / 1797, seed=0)
