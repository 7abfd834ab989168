"""Cross entropy against the formula in numpy and against Paddle's own loss."""

from __future__ import annotations

import math

import numpy as np
import paddle
import pytest

from resnet_fit import parse_config
from resnet_fit.errors import UserError
from resnet_fit.training.losses.loss import balanced_weights
from resnet_fit.training.objectives import BinaryCrossEntropy, CrossEntropy

LOGITS = np.random.default_rng(0).normal(size=(6, 4)).astype("float32") * 3
LABELS = np.array([0, 3, 1, 1, 2, 0])
MIXED = np.random.default_rng(1).dirichlet([1] * 4, size=6).astype("float32")


def reference(logits, probabilities, smoothing=0.0):
    """-sum p log softmax(x), by the definition and in float64."""
    logits = logits.astype("float64")
    log_softmax = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    target = probabilities * (1 - smoothing) + smoothing / logits.shape[1]
    return -(target * log_softmax).sum(1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("labels", [LABELS, LABELS[:, None], LABELS.astype("int32"), MIXED])
def test_equals_the_definition(smoothing, labels):
    loss = CrossEntropy(smoothing)
    target = labels if labels is MIXED else np.eye(4)[labels.ravel()]
    expected = reference(LOGITS, target, smoothing)
    logits, given = paddle.to_tensor(LOGITS), paddle.to_tensor(labels)
    np.testing.assert_allclose(loss.per_sample(logits, given).numpy(), expected, rtol=1e-5)
    assert float(loss(logits, given)) == pytest.approx(expected.mean(), rel=1e-5)


def test_equals_paddles_loss_and_gradient():
    ours, theirs = (paddle.to_tensor(LOGITS, stop_gradient=False) for _ in range(2))
    labels = paddle.to_tensor(LABELS)
    CrossEntropy(0.1)(ours, labels).backward()
    paddle.nn.CrossEntropyLoss(label_smoothing=0.1)(theirs, labels).backward()
    np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), atol=1e-7)


def test_certain_probabilities_equal_indices():
    loss = CrossEntropy(0.1)
    logits = paddle.to_tensor(LOGITS)
    hard = loss(logits, paddle.to_tensor(LABELS))
    soft = loss(logits, paddle.to_tensor(np.eye(4, dtype="float32")[LABELS]))
    assert float(hard) == float(soft)


def test_large_logits_stay_finite():
    logits = paddle.to_tensor([[1e4, -1e4], [1e4, -1e4]])
    losses = CrossEntropy().per_sample(logits, paddle.to_tensor([0, 1]))
    assert losses.numpy().tolist() == [0.0, 2e4]


def test_half_precision_logits_are_summed_in_float32():
    loss = CrossEntropy()(paddle.to_tensor(LOGITS).astype("float16"), paddle.to_tensor(LABELS))
    assert loss.dtype == paddle.float32


# --- each class for itself, and classes of other weight ---------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("labels", [LABELS, MIXED])
def test_binary_cross_entropy_equals_the_definition(smoothing, labels):
    target = labels if labels is MIXED else np.eye(4)[labels]
    target = target * (1 - smoothing) + smoothing / 4
    p = 1 / (1 + np.exp(-LOGITS.astype("float64")))
    expected = -(target * np.log(p) + (1 - target) * np.log(1 - p)).mean(1)
    loss = BinaryCrossEntropy(smoothing)
    logits, given = paddle.to_tensor(LOGITS), paddle.to_tensor(labels)
    np.testing.assert_allclose(loss.per_sample(logits, given).numpy(), expected, rtol=1e-5)
    assert float(loss(logits, given)) == pytest.approx(expected.mean(), rel=1e-5)


def test_a_threshold_makes_targets_whole():
    logits = paddle.to_tensor(LOGITS)
    whole = paddle.to_tensor((MIXED > 0.2).astype("float32"))
    thresholded = BinaryCrossEntropy(target_threshold=0.2)(logits, paddle.to_tensor(MIXED))
    assert float(thresholded) == float(BinaryCrossEntropy()(logits, whole))


WEIGHTS = np.array([0.5, 2.0, 1.0, 3.0], "float32")


def test_class_weights_are_paddles():
    logits, labels = paddle.to_tensor(LOGITS), paddle.to_tensor(LABELS)
    weighted = CrossEntropy(class_weights=WEIGHTS.tolist()).per_sample(logits, labels).numpy()
    # Paddle divides by the sum of the weights it met; the rest is the same.
    theirs = paddle.nn.CrossEntropyLoss(weight=paddle.to_tensor(WEIGHTS))(logits, labels)
    assert float(theirs) == pytest.approx(weighted.sum() / WEIGHTS[LABELS].sum())


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("loss", [CrossEntropy, BinaryCrossEntropy])
def test_class_weights_multiply_each_samples_loss(loss, smoothing):
    """A weight of two is the same as to see an image twice, with smoothed labels as well."""
    logits = paddle.to_tensor(LOGITS)
    for labels, weights in ((LABELS, WEIGHTS[LABELS]), (MIXED, MIXED @ WEIGHTS)):
        given = paddle.to_tensor(labels)
        plain = loss(smoothing).per_sample(logits, given).numpy()
        weighted = loss(smoothing, WEIGHTS.tolist()).per_sample(logits, given).numpy()
        np.testing.assert_allclose(weighted, plain * weights, rtol=1e-6)


def test_balanced_weights_make_classes_equal_and_keep_the_mean():
    labels = np.repeat([0, 1, 3], [70, 20, 10])
    weights = balanced_weights(labels, 4)
    sums = [weights[c] * (labels == c).sum() for c in (0, 1, 3)]
    np.testing.assert_allclose(sums, sums[0])
    assert np.mean(np.array(weights)[labels]) == pytest.approx(1)
    assert weights[2] == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CrossEntropy(1.0), "label_smoothing: received 1.0"),
        (lambda: BinaryCrossEntropy(-0.1), "label_smoothing: received -0.1"),
        (lambda: BinaryCrossEntropy(target_threshold=2), "target_threshold: received 2"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


@pytest.mark.parametrize("weight", [math.inf, math.nan, 0, -1, True, "2"])
def test_class_weights_are_finite_numbers_above_0(tiny, weight):
    tiny["loss"] = {"class_weights": [1] * 9 + [weight]}
    with pytest.raises(UserError, match=r"loss\.class_weights: expected balanced, or a list with"):
        parse_config(tiny)


def test_class_weights_for_another_number_of_classes_are_refused():
    loss = CrossEntropy(class_weights=[1.0, 2.0])
    with pytest.raises(UserError, match="class_weights: received 2, expected one for each of 4"):
        loss(paddle.to_tensor(LOGITS), paddle.to_tensor(LABELS))
