"""``data.json``: what a network was trained on."""

from __future__ import annotations

import dataclasses
import json

import pytest
from conftest import TINY

from resnet_fit import parse_config
from resnet_fit.data.make_loaders import make_loaders
from resnet_fit.data.record import Contents, DataRecord, Part
from resnet_fit.errors import UserError

CONTENTS = Contents(
    classes=("cat", "dog", "\udcff"),
    train=Part((5, 5, 2), "1a", "4d"),
    evaluation=Part((1, 1, 1), "2b", "4d"),
    test=Part((2, 2, 2), "3c", "4d"),
)
RECORD = DataRecord(
    contents=CONTENTS,
    image_shape=(3, 32, 32),
    stored_shape=None,
    preprocessing=({"resize": {"size": 32}}, {"normalize": {"mean": [0.1, 1 / 3, 0.5]}}),
    mean=(0.1, 1 / 3, 0.5),
    std=(0.2, 0.2, 0.2),
)


def test_text_and_back(tmp_path):
    """Names of folders that are no text as well."""
    text = RECORD.to_json()
    assert DataRecord.from_json(text) == RECORD
    (tmp_path / "data.json").write_text(text, encoding="utf-8")
    assert DataRecord.read(tmp_path / "data.json") == RECORD
    assert RECORD.difference(RECORD) is None


def test_of_a_config_all_that_a_prediction_needs():
    config = parse_config(TINY, ["augmentation.eval=[{resize: {size: 10}}, normalize]"])
    loaders = make_loaders(config)
    record = loaders.record
    assert record.contents.classes == tuple("0123456789")
    assert sum(record.contents.train.images) == 1437
    assert sum(record.contents.evaluation.images) == 360
    assert record.contents.test is None
    assert (record.stored_shape, record.image_shape) == ((1, 8, 8), (1, 10, 10))
    assert record.preprocessing == (
        {"resize": {"size": 10, "interpolation": "bilinear"}},
        {"normalize": {"mean": list(record.mean), "std": list(record.std)}},
    )
    images = next(iter(loaders.train))[0]
    assert abs(images.mean()) < 0.1
    assert DataRecord.from_json(record.to_json()) == record


def test_recorded_numbers_are_used_again():
    config = parse_config(TINY)
    record = make_loaders(config).record
    numbers = {"mean": [0.0], "std": [1.0]}
    other = dataclasses.replace(
        record, mean=(0.0,), std=(1.0,), preprocessing=({"normalize": numbers},)
    )
    loaders = make_loaders(config, other)
    assert loaders.record == other
    assert next(iter(loaders.train))[0].min() == 0


def contents(**changes):
    return dataclasses.replace(RECORD, contents=dataclasses.replace(CONTENTS, **changes))


DIFFERENCES = {
    "class 'dog' is gone and class 'hound' is new": contents(classes=("cat", "hound", "\udcff")),
    "class 'cow', 'emu', 'fox' and 1 more is new": contents(
        classes=(*CONTENTS.classes, "cow", "emu", "fox", "gnu")
    ),
    "class 'cat' is gone": contents(classes=("dog", "\udcff")),
    "the classes have another order": contents(classes=("dog", "cat", "\udcff")),
    "class 'dog' has 6 training images instead of 5": contents(train=Part((5, 6, 2), "1b", "4d")),
    "class 'cat' has 6 training images instead of 5, and 1 more class differs": (
        contents(train=Part((6, 4, 2), "1b", "4d"))
    ),
    "evaluation images were renamed or replaced": contents(evaluation=Part((1, 1, 1), "2c", "4d")),
    "evaluation images were changed or replaced under the same names (--set data.compare=names "
    "accepts them, and then compares no content)": contents(evaluation=Part((1, 1, 1), "2b", "5e")),
    "the test part is gone": contents(test=None),
    "image_shape is (1, 32, 32), and was (3, 32, 32)": dataclasses.replace(
        RECORD, image_shape=(1, 32, 32)
    ),
}


@pytest.mark.parametrize("line", DIFFERENCES)
def test_the_first_difference_in_one_line(line):
    assert RECORD.difference(DIFFERENCES[line]) == line


def test_content_is_compared_where_both_have_it():
    by_names = contents(train=Part((5, 5, 2), "1a", None))
    assert RECORD.difference(by_names) is None
    assert by_names.difference(RECORD) is None


def damaged(**changes):
    return json.dumps(json.loads(RECORD.to_json()) | changes)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        damaged(format=2),
        damaged(image_shape=[3, 32]),
        damaged(contents={"classes": ["a"]}),
        damaged(contents=json.loads(RECORD.to_json())["contents"] | {"classes": ["a"]}),
        damaged(contents=json.loads(RECORD.to_json())["contents"] | {"train": "x"}),
        damaged(unknown=1),
    ],
)
def test_another_text_is_refused_in_one_line(text, tmp_path):
    file = tmp_path / "data.json"
    file.write_text(text)
    with pytest.raises(UserError, match=r"data\.json: not a record of data") as caught:
        DataRecord.read(file)
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"data\.json: cannot be read: No such file"):
        DataRecord.read(tmp_path / "data.json")
