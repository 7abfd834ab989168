"""Metrics of an epoch are means over its samples, whatever the sizes of its batches."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import paddle
import pytest
from sklearn.metrics import log_loss, top_k_accuracy_score

from resnet_fit.errors import UserError
from resnet_fit.training.metrics import MeanLoss, TopK, classification_metrics
from resnet_fit.training.objectives import CrossEntropy

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(50, 7)).astype("float32")
LABELS = RNG.integers(0, 7, 50)
UNEVEN = [0, 16, 32, 48, 50]


def feed(metric, labels=LABELS):
    for start, end in pairwise(UNEVEN):
        logits, given = paddle.to_tensor(LOGITS[start:end]), paddle.to_tensor(labels[start:end])
        metric.update(metric.compute(logits, given).numpy())
    return metric.accumulate()


def test_mean_loss_over_uneven_batches():
    softmax = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
    metric = MeanLoss(CrossEntropy().per_sample)
    assert feed(metric) == pytest.approx(log_loss(LABELS, softmax, labels=range(7)), rel=1e-5)


def test_mean_loss_takes_paddles_losses_too():
    paddles = MeanLoss(paddle.nn.CrossEntropyLoss(reduction="none"))
    assert feed(paddles) == pytest.approx(feed(MeanLoss(CrossEntropy().per_sample)), rel=1e-5)


def test_top_k_equals_scikit_learns():
    expected = [top_k_accuracy_score(LABELS, LOGITS, k=k) for k in (1, 5)]
    assert feed(TopK((1, 5))) == pytest.approx(expected)


def test_top_k_of_mixed_labels_is_the_mixed_accuracy():
    one, other = np.eye(7, dtype="float32")[LABELS], np.eye(7, dtype="float32")[LABELS[::-1]]
    shares = zip(feed(TopK((1, 5))), feed(TopK((1, 5)), LABELS[::-1]), strict=True)
    expected = [0.6 * first + 0.4 * second for first, second in shares]
    assert feed(TopK((1, 5)), one * 0.6 + other * 0.4) == pytest.approx(expected)


def test_reset_forgets():
    metric = TopK((1,))
    feed(metric)
    metric.reset()
    assert metric.accumulate() == [0.0]


@pytest.mark.parametrize(
    ("classes", "names"),
    [(1000, ["top1", "top5"]), (6, ["top1", "top5"]), (4, ["top1", "top3"]), (2, ["top1"])],
)
def test_top_k_says_something_for_any_number_of_classes(classes, names):
    loss, top = classification_metrics(CrossEntropy(), classes)
    assert (loss.name(), top.name()) == ("loss", names)


def test_paddle_model_reports_the_mean_where_it_had_the_last_batch():
    images, labels = RNG.normal(size=(50, 3)).astype("float32"), LABELS
    batches = [[images[a:b], labels[a:b]] for a, b in pairwise(UNEVEN)]
    network = paddle.nn.Linear(3, 7)
    loss = CrossEntropy()
    model = paddle.Model(network)
    model.prepare(loss=loss, metrics=classification_metrics(loss, 7))
    result = model.evaluate(batches, verbose=0)
    logits = paddle.to_tensor(images) @ network.weight + network.bias
    assert result["loss"] == pytest.approx(float(loss(logits, paddle.to_tensor(labels))), rel=1e-5)


def test_numbers_of_classes_that_cannot_be_meant_are_refused():
    for none in ([], [0, 1]):
        with pytest.raises(UserError, match=r"k: received .* expected numbers of classes"):
            TopK(none)
    with pytest.raises(UserError, match=r"k: received \(1, 8\), expected 7 at most"):
        feed(TopK([1, 8]))
