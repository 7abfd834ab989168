"""What counts as agreement."""

from __future__ import annotations

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from resnet_fit.export.agreement import compare, probabilities

LABELS = np.array([0, 1])
LOGITS = np.array([[2.0, 0.5, -1.0], [0.0, 3.0, 1.0]], np.float32)


def test_probabilities_are_those_of_the_losses():
    logits = np.random.default_rng(0).normal(0, 40, (50, 7)).astype("float32")
    tensor = paddle.to_tensor(logits)
    for each_class, theirs in ((False, F.softmax(tensor, -1)), (True, F.sigmoid(tensor))):
        ours = probabilities(logits, each_class)
        assert np.isfinite(ours).all()
        assert np.allclose(ours, theirs.numpy(), rtol=1e-5, atol=1e-27)
        assert compare(logits, theirs.numpy(), logits.argmax(axis=1), each_class).holds


@pytest.mark.parametrize("each_class", [False, True])
def test_rounding_agrees_and_a_hundredth_does_not(each_class):
    exact = probabilities(LOGITS, each_class)
    rounded = compare(LOGITS, exact.astype("float32"), LABELS, each_class)
    assert rounded.holds
    assert rounded.difference < 1e-6
    other = compare(LOGITS, exact * [[1.01, 1, 1], [1, 1, 1]], LABELS, each_class)
    assert not other.holds
    assert other.difference == pytest.approx(0.01 / 1.01)
    assert other.same == other.right == other.right_exported == 2


def test_a_small_probability_that_is_wrong_does_not_agree():
    exact = probabilities(np.array([[12.0, 0.0]]), False)
    assert not compare(
        np.array([[12.0, 0.0]]), exact + np.array([0, 1e-8]), LABELS[:1], False
    ).holds


def test_another_likeliest_class_does_not_agree_unless_both_are_equally_likely():
    tie = np.array([[1.0, 1.0, 0.0]], np.float32)
    swapped = probabilities(tie, False) * [[1 - 1e-6, 1 + 1e-6, 1]]
    assert swapped.argmax() == 1
    agreement = compare(tie, swapped, np.array([0]), False)
    assert agreement.holds
    assert (agreement.right, agreement.right_exported) == (1, 0)
    assert agreement.points_lost == 100
    near = np.array([[1.0, 0.999, 0.0]], np.float32)
    other = compare(near, probabilities(near[:, [1, 0, 2]], False), np.array([0]), False)
    assert not other.holds
    assert other.same == 0


def test_nan_does_not_agree():
    exact = probabilities(LOGITS, False)
    exact[1, 2] = np.nan
    assert not compare(LOGITS, exact, LABELS, False).holds


def test_large_logits_may_be_rounded_in_proportion():
    logits = np.array([[400.0, 399.0, 0.0]])
    off = logits + np.array([4e-4, 0, 0])
    assert compare(logits, probabilities(off, False), np.array([0]), False).holds
    small = np.array([[1.0, 0.0, -4.0]])
    off = small + np.array([4e-4, 0, 0])
    assert not compare(small, probabilities(off, False), np.array([0]), False).holds
