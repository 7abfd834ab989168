"""The network of a run, for images one batch at a time."""

from __future__ import annotations

import numpy as np
import paddle

from resnet_fit.runs.open import OpenedRun


class RunModel:
    """An opened run as `predict` takes it.

    Attributes:
        classes: their names, in the order of the probabilities.
        prepare: gives the image ``[C, H, W]`` of a path as the network takes it.
    """

    def __init__(self, run: OpenedRun) -> None:
        self.run = run
        self.classes = run.classes
        self.prepare = run.preparation()

    def compute(self, images: np.ndarray) -> np.ndarray:
        """Prepared images ``[N, C, H, W]`` to probabilities ``[N, classes]``, float32."""
        with paddle.no_grad():
            return self.run.activate(self.run.network(paddle.to_tensor(images))).numpy()
