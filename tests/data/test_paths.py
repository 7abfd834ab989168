"""Paths in one block are the same paths; copies are read or named as lost."""

import os

import numpy as np
import pytest

from resnet_fit.data.paths import Copies, Copy, Paths
from resnet_fit.errors import RunFailed

NAMES = ["a/1.jpg", "ä/ö 2.png", os.fsdecode(b"b/\xff\xfe.gif"), "", "c/" + "x" * 200]


def test_the_same_sequence_as_a_list():
    paths = Paths.of(NAMES)
    assert list(paths) == NAMES
    assert len(paths) == 5
    assert paths[-1] == NAMES[-1]
    assert list(paths[1:4:2]) == NAMES[1:4:2]
    assert NAMES[2] in paths
    assert Paths.of(paths) is paths
    with pytest.raises(IndexError):
        paths[5]


def test_take_gives_them_in_the_order_asked_for():
    paths = Paths.of(NAMES).take(np.array([3, 0, 0, 4]))
    assert list(paths) == [NAMES[3], NAMES[0], NAMES[0], NAMES[4]]
    assert list(paths.take(np.array([3, 1]))) == [NAMES[4], NAMES[0]]
    assert list(Paths.of([])) == []


def test_the_root_is_in_front_of_every_path():
    block = b"a/1.jpgb/2.jpg"
    paths = Paths("/data/train", block, np.array([[0, 7], [7, 14]]))
    assert list(paths) == ["/data/train/a/1.jpg", "/data/train/b/2.jpg"]
    assert paths.below_root(1) == b"b/2.jpg"
    assert list(paths[1:]) == ["/data/train/b/2.jpg"]


def test_a_million_names_take_little_memory():
    names = [f"n{i % 1000:08d}/n{i % 1000:08d}_{i}.JPEG" for i in range(100_000)]
    paths = Paths.of(names)
    assert (len(paths.block) + paths.bounds.nbytes) / len(names) < 52


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
