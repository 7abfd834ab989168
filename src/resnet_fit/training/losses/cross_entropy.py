"""Cross entropy, of one distribution over all classes or of each class by itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from resnet_fit.config.problems import Problem
from resnet_fit.config.registry import part
from resnet_fit.config.settings import Below1
from resnet_fit.training.losses.loss import Loss

if TYPE_CHECKING:
    from paddle import nn

    from resnet_fit.runs.config import Config


@part("loss", "cross_entropy")
class CrossEntropy(Loss):
    """Cross entropy of the softmax over all classes."""

    def build(self, labels: np.ndarray, classes: int) -> nn.Layer:
        from resnet_fit.training import objectives

        return objectives.CrossEntropy(self.label_smoothing, self.weights(labels, classes))


@part("loss", "binary_cross_entropy")
class BinaryCrossEntropy(Loss):
    """Binary cross entropy of each class's sigmoid (Wightman et al. 2021, section 3).

    Args:
        target_threshold: targets above it become 1, all others 0, so that both of two mixed images
            count whole.
    """

    target_threshold: Below1 | None = None

    def no_effect(self, config: Config) -> Iterator[Problem]:
        yield from super().no_effect(config)
        if self.label_smoothing and self.target_threshold is not None:
            yield Problem(("label_smoothing",), "loss.target_threshold makes targets 0 or 1 again")

    def build(self, labels: np.ndarray, classes: int) -> nn.Layer:
        from resnet_fit.training import objectives

        weights = self.weights(labels, classes)
        return objectives.BinaryCrossEntropy(self.label_smoothing, weights, self.target_threshold)
