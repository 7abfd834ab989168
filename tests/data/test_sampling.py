"""Samplers: which images an epoch has, and how often."""

import numpy as np
import pytest

from resnet_fit.data.augment import HorizontalFlip, RandomCrop
from resnet_fit.data.dataset import ArrayDataset
from resnet_fit.data.loading import ArrayLoader
from resnet_fit.data.sampling import balanced, in_order, repeated, shuffled

SKEWED = np.repeat([0, 1, 3], [70, 20, 7])  # class 2 does not occur


def rng(seed=0):
    return np.random.default_rng(seed)


def test_shuffled_has_every_image_once():
    order = shuffled(SKEWED, rng())
    assert sorted(order) == list(range(97))
    assert list(order) != list(range(97))
    assert list(in_order(SKEWED, rng())) == list(range(97))


def test_balanced_has_every_class_as_often():
    order = balanced(SKEWED, rng())
    assert len(order) == len(SKEWED)
    counts = np.bincount(SKEWED[order], minlength=4)
    assert sorted(counts[[0, 1, 3]]) == [32, 32, 33]
    assert counts[2] == 0
    first, second = (np.bincount(SKEWED[balanced(SKEWED, rng(s))[:48]]) for s in (1, 2))
    assert (first[[0, 1, 3]] > 8).all()  # mixed through, not class by class
    assert (second[[0, 1, 3]] > 8).all()


def test_balanced_uses_up_a_class_before_it_repeats():
    times = np.bincount(balanced(SKEWED, rng()), minlength=97)
    for label in (0, 1, 3):
        of_class = times[label == SKEWED]
        assert of_class.max() - of_class.min() <= 1


@pytest.mark.parametrize("times", [2, 3])
def test_repeated_images_come_in_a_row_and_an_epoch_stays_as_long(times):
    order = repeated(shuffled, times)(SKEWED, rng())
    once = shuffled(SKEWED, rng())
    assert len(order) == 97
    np.testing.assert_array_equal(order, np.repeat(once, times)[:97])


def test_a_loader_follows_its_sampler_and_augments_repeats_differently():
    images = rng().integers(0, 256, (97, 3, 8, 8)).astype(np.uint8)
    dataset = ArrayDataset(images, SKEWED, tuple("abcd"))
    loader = ArrayLoader(
        dataset, 32, [RandomCrop(2), HorizontalFlip()], sampler=repeated(balanced, 2)
    )
    first, second = list(loader), list(loader)
    labels = np.concatenate([batch[1] for batch in first])
    np.testing.assert_array_equal(labels[0:96:2], labels[1:96:2])
    pictures = np.concatenate([batch[0] for batch in first])
    differ = (pictures[0:96:2] != pictures[1:96:2]).any((1, 2, 3))
    assert differ.mean() > 0.9
    assert not np.array_equal(labels, np.concatenate([batch[1] for batch in second]))
