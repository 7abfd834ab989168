"""Calibration by second formulas, and a temperature that is known."""

from __future__ import annotations

import numpy as np
import pytest
from evaluated import drawn, predictions
from sklearn.metrics import log_loss

from resnet_fit.evaluation.calibration import best_temperature, calibrate


def ece(confidence, right):
    """Of sorted images, bin by bin: edges belong to the lower bin."""
    total = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            total += inside.sum() * abs(confidence[inside].mean() - right[inside].mean())
    return total / len(right)


@pytest.mark.parametrize("classes", [2, 7])
def test_expected_calibration_error(classes):
    found = drawn(classes=classes)
    ours = calibrate(found)
    assert ours.ece == pytest.approx(ece(found.confidence, ~found.wrong))
    assert sum(b.images for b in ours.bins) == len(found)
    assert [b.accuracy for b in ours.bins if not b.images] == [None] * (
        sum(not b.images for b in ours.bins)
    )


def test_the_temperature_that_was_put_in_comes_out():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20000, 5)) * 2
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (probabilities.cumsum(1) > rng.random((20000, 1))).argmax(1)
    found = calibrate(predictions(logits * 3, labels))
    assert found.temperature == pytest.approx(3, rel=0.03)
    assert found.ece_at_temperature < 0.015 < found.ece
    assert found.loss_at_temperature == pytest.approx(log_loss(labels, probabilities), rel=1e-3)


def test_no_other_temperature_has_a_lower_loss():
    found = drawn(sharpness=0.5)
    ours = calibrate(found)

    def loss(t):
        logits = found.logits / t
        return log_loss(found.labels, np.exp(logits) / np.exp(logits).sum(1, keepdims=True))

    assert ours.loss_at_temperature == pytest.approx(loss(ours.temperature), rel=1e-6)
    assert all(ours.loss_at_temperature <= loss(ours.temperature * f) for f in (0.9, 1.1))


def test_there_is_none_where_every_image_is_right():
    logits, labels = np.eye(4) * 3, np.arange(4)
    assert best_temperature(logits, labels) is None
    assert best_temperature(logits, labels[::-1]) is None  # nor where each is wrong
    assert calibrate(predictions(logits, labels)).ece_at_temperature is None
