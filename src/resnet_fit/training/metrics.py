"""Metrics for `paddle.Model.prepare`, each a mean over all samples seen since the last reset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import paddle
from paddle import Tensor

from resnet_fit import parallel
from resnet_fit.data.dealing import Dealer
from resnet_fit.errors import require
from resnet_fit.training.objectives import BinaryCrossEntropy, CrossEntropy, as_probabilities


class MeanLoss(paddle.metric.Metric):
    """The mean loss of an epoch, under the name ``loss``.

    `paddle.Model` logs, returns and monitors the loss of the *last batch* as ``loss``. Listed
    among the metrics, this one takes that name over, and every consumer sees the mean.

    Args:
        per_sample: a loss ``(logits, labels) -> [N]``, such as ``CrossEntropy().per_sample`` or
            ``paddle.nn.CrossEntropyLoss(reduction="none")``.
    """

    def __init__(self, per_sample: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.per_sample = per_sample
        self.reset()

    def name(self) -> str:
        return "loss"

    def compute(self, logits: Tensor, labels: Tensor) -> Tensor:
        with paddle.no_grad():
            return self.per_sample(logits, labels)

    def update(self, losses: np.ndarray) -> float:
        self.total += float(np.sum(losses, dtype=np.float64))
        self.count += losses.size
        return float(np.mean(losses))

    def accumulate(self) -> float:
        return self.total / max(self.count, 1)

    def reset(self) -> None:
        self.total, self.count = 0.0, 0

    def state_dict(self) -> dict[str, Any]:
        return {"total": self.total, "count": self.count}

    def set_state_dict(self, state: dict[str, Any]) -> None:
        self.total, self.count = state["total"], state["count"]


class TopK(paddle.metric.Metric):
    """Share of samples whose class is among the ``k`` highest logits, as ``top1``, ``top5``, ...

    Where labels are probabilities, a sample counts with that of its ``k`` highest logits together:
    of two mixed images, each with its share (as Zhang et al. 2017 count it).
    """

    def __init__(self, k: Sequence[int] = (1, 5)) -> None:
        super().__init__()
        self.k = tuple(k)
        require(min(self.k, default=0) >= 1, "k", self.k, "numbers of classes, each 1 or more")
        self.right: list[float] = []
        self.count = 0
        self.reset()

    def name(self) -> list[str]:
        return [f"top{k}" for k in self.k]

    def compute(self, logits: Tensor, labels: Tensor) -> Tensor:
        """``[N, max k]``: the probability of the n-th best class, 1 where it is the right one."""
        classes = logits.shape[-1]
        require(max(self.k) <= classes, "k", self.k, f"{classes} at most, of so many classes")
        best = paddle.topk(logits, max(self.k), axis=-1)[1]
        return paddle.take_along_axis(as_probabilities(labels, classes), best, axis=-1)

    def update(self, hits: np.ndarray) -> list[float]:
        right = [float(hits[:, :k].sum()) for k in self.k]
        self.right = [total + new for total, new in zip(self.right, right, strict=True)]
        self.count += len(hits)
        return [r / len(hits) for r in right]

    def accumulate(self) -> list[float]:
        return [right / max(self.count, 1) for right in self.right]

    def reset(self) -> None:
        self.right, self.count = [0.0] * len(self.k), 0

    def state_dict(self) -> dict[str, Any]:
        return {"right": self.right, "count": self.count}

    def set_state_dict(self, state: dict[str, Any]) -> None:
        self.right, self.count = list(state["right"]), state["count"]


class OverProcesses(paddle.metric.Metric):
    """A metric over all processes that train together, from one of sums over this one's samples.

    Args:
        metric: its ``state_dict`` holds numbers, or lists of them, that add up over samples.
        dealer: knows whether the batch in hand counts.
    """

    def __init__(self, metric: paddle.metric.Metric, dealer: Dealer) -> None:
        super().__init__()
        self.metric, self.dealer = metric, dealer

    def name(self) -> Any:
        return self.metric.name()

    def compute(self, *arguments: Any) -> Any:
        return self.metric.compute(*arguments)

    def update(self, *arguments: Any) -> Any:
        return self.metric.update(*arguments) if self.dealer.counts else None

    def accumulate(self) -> Any:
        """The same on every process; all of them have to ask for it."""
        own, total = self.metric.state_dict(), self.state_dict()
        self.metric.set_state_dict(total)
        value = self.metric.accumulate()
        self.metric.set_state_dict(own)
        return value

    def reset(self) -> None:
        self.metric.reset()

    def state_dict(self) -> dict[str, Any]:
        """Sums over all processes; all of them have to ask for it."""
        own = self.metric.state_dict()
        sums = iter(parallel.total([n for value in own.values() for n in np.ravel(value)]))
        return {
            key: [next(sums) for _ in value] if isinstance(value, list) else type(value)(next(sums))
            for key, value in own.items()
        }

    def set_state_dict(self, state: dict[str, Any]) -> None:
        self.metric.reset()
        if parallel.is_first():  # whoever adds up counts them once
            self.metric.set_state_dict(state)


def classification_metrics(
    loss: CrossEntropy | BinaryCrossEntropy, classes: int
) -> list[paddle.metric.Metric]:
    """Mean loss, top-1 and top-5 (the highest k that says something, for fewer than 6 classes)."""
    return [MeanLoss(loss.per_sample), TopK(sorted({1, max(1, min(5, classes - 1))}))]
