"""The training objective."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn


class CrossEntropy(nn.Layer):
    """Mean cross entropy of logits ``[N, C]`` against classes or probabilities.

    Labels are class indices (integers, ``[N]`` or ``[N, 1]``) or probabilities (``[N, C]``, as
    mixing makes them); which of the two is seen from their shape and type, so that one loss serves
    a mixed training and a plain evaluation. ``label_smoothing`` e mixes e of the uniform
    distribution into either (Szegedy et al. 2015, section 7).
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return self.per_sample(logits, labels).mean()

    def per_sample(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of each sample, ``[N]``."""
        logits = logits.astype("float32")
        classes = logits.shape[-1]
        target = as_probabilities(labels, classes)
        if self.label_smoothing:
            target = target * (1 - self.label_smoothing) + self.label_smoothing / classes
        # -sum(p log softmax(x)) with sum(p) = 1, without ever forming the softmax.
        return paddle.logsumexp(logits, axis=-1) - (target * logits).sum(axis=-1)


def as_probabilities(labels: Tensor, classes: int) -> Tensor:
    """Labels as float32 ``[N, C]``: probabilities as they are, indices one-hot."""
    if len(labels.shape) == 2 and labels.shape[-1] == classes and "float" in str(labels.dtype):
        return labels.astype("float32")
    return F.one_hot(labels.flatten().astype("int64"), classes).astype("float32")
