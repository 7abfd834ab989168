"""Pictures of confusion matrices."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from resnet_fit import fonts
from resnet_fit.evaluation.charts import confusion_picture


@pytest.fixture
def own_font_alone(monkeypatch):
    for cached in (fonts._families, fonts._characters):
        cached.cache_clear()
    monkeypatch.setattr(fonts, "EAST_ASIAN", ())
    yield
    for cached in (fonts._families, fonts._characters):
        cached.cache_clear()


@pytest.mark.parametrize("row", [499, 500, 501, 502])
def test_no_row_of_a_thousand_is_left_out(row):
    names = tuple(map(str, range(1000)))
    matrix = np.eye(1000, dtype=int)
    before = confusion_picture(matrix, names)
    matrix[row] = np.roll(matrix[row], 300)
    assert (confusion_picture(matrix, names) != before).any()


def test_names_that_no_font_has_are_numbers(own_font_alone):
    matrix = np.eye(3, dtype=int)
    assert fonts.can_be_drawn("é λ я")
    assert not fonts.can_be_drawn("猫")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        unknown = confusion_picture(matrix, ("猫", "狗", "cow"))
    numbers = confusion_picture(matrix, ("class 0", "class 1", "cow"))
    np.testing.assert_array_equal(unknown, numbers)


def test_a_font_of_the_machine_is_taken_where_there_is_one(own_font_alone, monkeypatch):
    monkeypatch.setattr(fonts, "EAST_ASIAN", ("cmr10", "No Such Font"))
    assert fonts._families() == (fonts.OWN, "cmr10")  # one that matplotlib brings itself
