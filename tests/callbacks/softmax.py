"""Softmax regression twice: for `paddle.Model`, and by hand in numpy to know what is right."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import paddle
from paddle.metric import Metric

from resnet_fit import CrossEntropy, classification_metrics

FEATURES, CLASSES = 3, 4
TRAIN_SIZES, EVAL_SIZES = (8, 8, 5), (8, 3)
RATES = (1.0, 0.5, 0.25, 0.125)
START = np.random.default_rng(0).normal(size=(FEATURES, CLASSES)).astype("float32")

Batches = list[list[np.ndarray]]


def make_batches(sizes: tuple[int, ...], seed: int = 0) -> Batches:
    rng = np.random.default_rng(seed)
    return [
        [rng.normal(size=(n, FEATURES)).astype("float32"), rng.integers(0, CLASSES, n)]
        for n in sizes
    ]


TRAIN, EVAL = make_batches(TRAIN_SIZES, seed=1), make_batches(EVAL_SIZES, seed=2)


def make_model(metrics: list[Metric] | None = None) -> paddle.Model:
    """A linear classifier that starts at `START`; its learning rate goes round `RATES` by steps."""
    network = paddle.nn.Linear(FEATURES, CLASSES)
    network.weight.set_value(START)
    rate = paddle.optimizer.lr.LambdaDecay(1.0, lambda step: RATES[step % len(RATES)])
    model = paddle.Model(network)
    model.prepare(
        paddle.optimizer.SGD(rate, parameters=network.parameters()),
        CrossEntropy(),
        classification_metrics(CrossEntropy(), CLASSES) if metrics is None else metrics,
    )
    return model


@dataclass
class Account:
    """What each step and each epoch's evaluation showed: the loss and hit of every sample."""

    steps: list[dict[str, np.ndarray]] = field(default_factory=list)
    evaluations: list[dict[str, np.ndarray]] = field(default_factory=list)


def by_hand(epochs: int) -> Account:
    """The same training without Paddle."""
    weight, bias = START.astype("float64"), np.zeros(CLASSES)
    account = Account()
    for _ in range(epochs):
        for images, labels in TRAIN:
            rate = RATES[len(account.steps) % len(RATES)]
            probabilities, seen = _judge(images, labels, weight, bias)
            account.steps.append(seen)
            error = (probabilities - np.eye(CLASSES)[labels]) / len(labels)
            weight -= rate * images.T @ error
            bias -= rate * error.sum(0)
        judged = [_judge(images, labels, weight, bias)[1] for images, labels in EVAL]
        account.evaluations.append(
            {name: np.concatenate([j[name] for j in judged]) for name in judged[0]}
        )
    return account


def mean(account: Account, name: str, first: int, last: int) -> float:
    """The mean over all samples of the steps ``first`` (from 0) to before ``last``."""
    return float(np.concatenate([s[name] for s in account.steps[first:last]]).mean())


def _judge(
    images: np.ndarray, labels: np.ndarray, weight: np.ndarray, bias: np.ndarray
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    logits = images @ weight + bias
    powers = np.exp(logits)
    probabilities = powers / powers.sum(1, keepdims=True)
    of_label = probabilities[np.arange(len(labels)), labels]
    rank = (probabilities > of_label[:, None]).sum(1)
    return probabilities, {
        "loss": -np.log(of_label),
        "top1": (rank < 1).astype(float),
        "top3": (rank < 3).astype(float),
    }
