"""The training objective.

Labels are class indices (integers, ``[N]`` or ``[N, 1]``) or probabilities (``[N, C]``, as mixing
makes them); which of the two is seen from their shape and type, so that one loss serves a mixed
training and a plain evaluation. They are probabilities already: no loss puts a softmax on them.
"""

from __future__ import annotations

from collections.abc import Sequence

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from resnet_fit.errors import require


class _Loss(nn.Layer):
    """The mean over samples of what `per_sample` says.

    ``label_smoothing`` e mixes e of the uniform distribution into the labels (Szegedy et al. 2015,
    section 7). ``class_weights`` multiplies the loss of each sample by the weight of its class, of
    mixed ones by the mean in their proportion; the mean is not divided by the weights, so that
    weights with a mean of 1 keep the learning rate what it was. Unlike PyTorch's, the smoothed part
    of a label is not weighted class by class: it would pull every image to the heavy classes.
    """

    def __init__(
        self, label_smoothing: float = 0.0, class_weights: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        require(0 <= label_smoothing < 1, "label_smoothing", label_smoothing, "0 to less than 1")
        self.label_smoothing = label_smoothing
        self.class_weights = (
            None if class_weights is None else paddle.to_tensor(class_weights, "float32")
        )

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return self.per_sample(logits, labels).mean()

    def per_sample(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of each sample, ``[N]``."""
        classes = logits.shape[-1]
        labels = as_probabilities(labels, classes)
        targets = labels
        if self.label_smoothing:
            targets = labels * (1 - self.label_smoothing) + self.label_smoothing / classes
        losses = self._unweighted(logits.astype("float32"), targets)
        if self.class_weights is None:
            return losses
        given = len(self.class_weights)
        require(given == classes, "class_weights", given, f"one for each of {classes} classes")
        return losses * (labels @ self.class_weights)

    def _unweighted(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of each sample, of logits and probabilities ``[N, C]`` in float32."""
        raise NotImplementedError


class CrossEntropy(_Loss):
    """Mean cross entropy of logits ``[N, C]`` against classes or probabilities."""

    def _unweighted(self, logits: Tensor, targets: Tensor) -> Tensor:
        # -log softmax(x), without ever forming the softmax.
        minus_log = paddle.logsumexp(logits, axis=-1, keepdim=True) - logits
        return (targets * minus_log).sum(axis=-1)


class BinaryCrossEntropy(_Loss):
    """Cross entropy of each class's sigmoid, the mean over samples and classes.

    Wightman et al. 2021, "ResNet strikes back", section 3. With ``target_threshold``, targets above
    it become 1 and all others 0, as in their best recipes: both of two mixed images count whole.
    """

    def __init__(
        self,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
        target_threshold: float | None = None,
    ) -> None:
        super().__init__(label_smoothing, class_weights)
        within = target_threshold is None or 0 <= target_threshold < 1
        require(within, "target_threshold", target_threshold, "0 to less than 1")
        self.target_threshold = target_threshold

    def _unweighted(self, logits: Tensor, targets: Tensor) -> Tensor:
        if self.target_threshold is not None:
            targets = (targets > self.target_threshold).astype("float32")
        each = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        return each.mean(axis=-1)


def as_probabilities(labels: Tensor, classes: int) -> Tensor:
    """Labels as float32 ``[N, C]``: probabilities as they are, indices one-hot."""
    if len(labels.shape) == 2 and labels.shape[-1] == classes and "float" in str(labels.dtype):
        return labels.astype("float32")
    return F.one_hot(labels.flatten().astype("int64"), classes).astype("float32")
