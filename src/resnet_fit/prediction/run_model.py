"""The network of a run as a model for `predict`."""

from __future__ import annotations

import numpy as np
import paddle

from resnet_fit.runs.open import OpenedRun


class RunModel:
    """An opened run with the interface that `predict` needs.

    Attributes:
        classes: their names, in the order of the probabilities.
        prepare: reads the image file of a path as the network's input ``[C, H, W]``.
    """

    def __init__(self, run: OpenedRun) -> None:
        self.run = run
        self.classes = run.classes
        self.prepare = run.preparation()

    def compute(self, images: np.ndarray) -> np.ndarray:
        """Probabilities float32 ``[N, classes]`` of preprocessed images ``[N, C, H, W]``."""
        with paddle.no_grad():
            return self.run.activate(self.run.network(paddle.to_tensor(images))).numpy()
