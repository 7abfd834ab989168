"""The loaders of a config, where its data are a program's own."""

from __future__ import annotations

import numpy as np
import pytest

from resnet_fit import parse_config
from resnet_fit.data.datasets.data import Parts
from resnet_fit.data.make_loaders import make_loaders
from resnet_fit.errors import UserError
from resnet_fit.parts import ArrayDataset

CONFIG = {
    "model": {"name": "given"},
    "data": {"name": "given", "batch_size": 4},
    "augmentation": {"train": ["normalize"]},
    "optimizer": {"name": "sgd", "learning_rate": 0.1},
    "training": {"epochs": 3},
}


def part(classes=("cat", "dog"), shape=(3, 8, 8)):
    images = np.random.default_rng(0).integers(0, 256, (8, *shape), np.uint8)
    return ArrayDataset(images, np.arange(8) % 2, classes)


@pytest.mark.parametrize(
    ("classes", "difference"),
    [
        (("dog", "cat"), "the classes have another order"),
        (("cat", "dog", "emu"), "class 'emu' is new"),
        (("cat", "hound"), "class 'dog' is gone and class 'hound' is new"),
    ],
)
@pytest.mark.parametrize("which", ["evaluation", "test"])
def test_all_parts_have_the_classes_of_the_training_images(classes, difference, which):
    parts = Parts(part(), part(), part())._replace(**{which: part(classes)})
    with pytest.raises(UserError, match=f"data: the {which} images .*: {difference}$"):
        make_loaders(parse_config(CONFIG), parts=parts)


@pytest.mark.parametrize("assignment", ["limit=5", "validation=0.2", "split_seed=1"])
def test_data_handed_over_are_not_divided(assignment):
    key, _, value = assignment.partition("=")
    with pytest.raises(UserError, match=rf"data\.{key}: received {value}, but data that a program"):
        parse_config(CONFIG, [f"data.{assignment}"])


def test_progressive_resizing_is_for_square_images():
    config = parse_config(CONFIG, ["augmentation.progressive={start: 4}"])
    assert make_loaders(config, parts=Parts(part(), part(), None)).full_size == 8
    oblong = part(shape=(3, 8, 12))
    with pytest.raises(UserError, match="progressive: received training images of 12x8 pixels"):
        make_loaders(config, parts=Parts(oblong, oblong, None))


def test_a_channel_of_one_value_has_no_deviation():
    images = part().images.copy()
    images[:, 1] = 7
    constant = ArrayDataset(images, np.arange(8) % 2, ("cat", "dog"))
    with pytest.raises(UserError, match="normalize: channel 1 has one value in all training"):
        make_loaders(parse_config(CONFIG), parts=Parts(constant, part(), None))
