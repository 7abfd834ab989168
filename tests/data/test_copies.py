"""Decoded copies are read, or named as lost."""

import numpy as np
import pytest

from resnet_fit.data.copies import Copies, Copy
from resnet_fit.errors import RunFailed


@pytest.fixture
def copies(tmp_path):
    pixels = np.arange(2 * 3 * 3 + 4 * 1 * 3, dtype=np.uint8)
    pixels.tofile(tmp_path / "pixels.bin")
    places = np.array([[0, 2, 3], [-1, 0, 0], [18, 4, 1]])
    return pixels, Copies(str(tmp_path / "pixels.bin"), places)


def test_copies_are_rows_of_pixels(copies):
    pixels, found = copies
    np.testing.assert_array_equal(found[0].read(), pixels[:18].reshape(3, 2, 3))
    np.testing.assert_array_equal(found[2].read(), pixels[18:].reshape(1, 4, 3))
    assert found[1] is None
    assert found.take(np.array([2, 1]))[0] == found[2]


def test_a_file_that_is_gone_or_cut_is_named(copies, tmp_path):
    with pytest.raises(RunFailed, match=r"gone\.bin: the image cache is lost"):
        Copy(str(tmp_path / "gone.bin"), 0, 2, 3).read()
    with pytest.raises(RunFailed, match=r"pixels\.bin: the image cache was cut short"):
        Copy(str(tmp_path / "pixels.bin"), 24, 4, 1).read()
