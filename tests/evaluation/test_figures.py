"""Figures are scikit-learn's, also where a class has no images and where logits are equal."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from evaluated import drawn, predictions
from scipy.stats import binomtest
from sklearn import metrics

from resnet_fit.evaluation.figures import (
    confusion_matrix,
    interval,
    macro_means,
    main_figures,
    per_class,
    surest_mistakes,
    top_confusions,
    worst_classes,
)


def test_main_figures_are_scikit_learns():
    found = drawn()
    ours = main_figures(found.logits, found.labels)
    classes = range(7)
    assert ours["top1"] == metrics.accuracy_score(found.labels, found.predicted)
    top5 = metrics.top_k_accuracy_score(
        found.labels[5:], found.probabilities[5:], k=5, labels=classes
    )
    assert main_figures(found.logits[5:], found.labels[5:])["top5"] == pytest.approx(top5)
    loss = metrics.log_loss(found.labels, found.probabilities, labels=classes)
    assert ours["loss"] == pytest.approx(loss, rel=1e-6)


def test_equal_logits_do_not_count_as_right():
    logits, labels = np.zeros((6, 6)), np.arange(6)
    assert main_figures(logits, labels) == pytest.approx(
        {"top1": 1 / 6, "top5": 5 / 6, "loss": np.log(6)}
    )
    assert "top5" not in main_figures(logits[:5, :5], labels[:5])


def test_huge_logits_have_a_finite_loss():
    logits = np.array([[3e4, 0.0], [0.0, 3e4]], np.float32)
    assert main_figures(logits, np.array([1, 1]))["loss"] == pytest.approx(1.5e4)


def test_each_class_is_scikit_learns_and_one_without_images_is_left_out():
    found = drawn()
    found = predictions(np.pad(found.logits, ((0, 0), (0, 2)), constant_values=-9), found.labels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = per_class(found)
        means = macro_means(ours)
    expected = metrics.classification_report(found.labels, found.predicted, output_dict=True)
    for i, c in enumerate(ours[:7]):
        theirs = expected[str(i)]
        assert (c.precision, c.recall, c.f1, c.images) == pytest.approx(
            (theirs["precision"], theirs["recall"], theirs["f1-score"], theirs["support"])
        )
    assert ours[7][1:] == (0, 0, None, None, None)
    theirs = expected["macro avg"]
    assert tuple(means.values()) == pytest.approx(
        (theirs["precision"], theirs["recall"], theirs["f1-score"])
    )
    assert worst_classes(ours, 1)[0].f1 == min(c.f1 for c in ours[:7])


def test_confusions():
    found = drawn()
    matrix = metrics.confusion_matrix(found.labels, found.predicted)
    assert np.array_equal(confusion_matrix(found), matrix)
    off = matrix - np.diag(matrix.diagonal())
    first = top_confusions(found, 3)[0]
    place = found.classes.index(first.label), found.classes.index(first.prediction)
    assert first.images == off.max() == off[place]
    assert first.share == pytest.approx(off[place] / matrix[place[0]].sum())
    assert sum(c.images for c in top_confusions(found, 999)) == off.sum()


def test_the_surest_mistakes_come_first():
    found = drawn()
    order = surest_mistakes(found, 10)
    assert found.wrong[order].all()
    assert found.confidence[order[0]] == found.confidence[found.wrong].max()
    assert (np.diff(found.confidence[order]) <= 0).all()


@pytest.mark.parametrize(("right", "count"), [(8, 10), (0, 10), (10, 10), (9833, 10000)])
def test_interval_is_wilsons(right, count):
    theirs = binomtest(right, count).proportion_ci(method="wilson")
    assert interval(right / count, count) == pytest.approx((theirs.low, theirs.high), abs=1e-6)
