"""Labels that were made wrong are found."""

from __future__ import annotations

import numpy as np
import pytest
from evaluated import predictions

from resnet_fit import fit, open_run, parse_config
from resnet_fit.evaluation.label_errors import suspected_labels
from resnet_fit.runs.held_out import held_out


def test_the_confident_joint_by_hand():
    probabilities = np.array(
        [
            [0.9, 0.1, 0.0],
            [0.8, 0.2, 0.0],
            [0.1, 0.9, 0.0],  # labelled 0, and as sure of 1 as those labelled 1
            [0.2, 0.8, 0.0],
            [0.1, 0.9, 0.0],
            [0.4, 0.6, 0.0],  # labelled 0, but not sure enough of 1
        ]
    )
    labels = np.array([0, 0, 0, 1, 1, 0])
    suspects, look_like = suspected_labels(probabilities, labels)
    assert (suspects.tolist(), look_like.tolist()) == ([2], [1])


def test_a_suspect_looks_like_the_class_whose_threshold_it_reaches():
    """Not like the likeliest one, where images of that class are classified more surely."""
    probabilities = np.array(
        [
            [0.9, 0.05, 0.05],
            [0.35, 0.33, 0.32],
            [0.1, 0.2, 0.7],
            [0.5, 0.34, 0.16],  # labelled 2, likelier 0, and as sure of 1 as the one labelled 1
        ]
    )
    suspects, look_like = suspected_labels(probabilities, np.array([0, 1, 2, 2]))
    assert (suspects.tolist(), look_like.tolist()) == ([3], [1])


def test_the_most_likely_ones_come_first_and_a_class_without_images_is_not_seen():
    probabilities = np.array([[0.98, 0.02, 0.0], [0.1, 0.1, 0.8], [0.97, 0.03, 0], [0.03, 0.97, 0]])
    labels = np.array([1, 1, 0, 1])
    assert suspected_labels(probabilities, labels)[0].tolist() == [0]


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A run that classifies about 96 % of the held-out digits right."""
    config = parse_config(
        {
            "model": {"depth": [1, 1, 1], "stem": "cifar", "width": 12},
            "data": {"name": "digits", "batch_size": 32},
            "augmentation": {"train": ["normalize"], "eval": ["normalize"]},
            "optimizer": {"name": "momentum", "learning_rate": 0.1},
            "schedule": {"name": "one_cycle"},
            "training": {"epochs": 3},
            "callbacks": {"visualdl": None},
        }
    )
    return open_run(fit(config, tmp_path_factory.mktemp("runs"), "run").folder)


def test_planted_errors_among_digits_are_found(digits):
    """Of 5 % of the labels made wrong, twenty times over."""
    data = held_out(digits)
    logits = digits.logits(data.images).numpy()
    planted = hits = suspected = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        wrong = rng.choice(len(data), len(data) // 20, replace=False)
        labels = data.labels.copy()
        labels[wrong] = (labels[wrong] + rng.integers(1, 10, len(wrong))) % 10
        found, _ = suspected_labels(predictions(logits, labels).probabilities, labels)
        planted, suspected = planted + len(wrong), suspected + len(found)
        hits += np.isin(wrong, found).sum()
    assert hits / planted >= 0.85
    assert hits / suspected >= 0.85
