"""Whether images are the same, told without reading all of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from resnet_fit.data.dataset import ArrayDataset, FileDataset
from resnet_fit.data.datasets.folder import scan
from resnet_fit.data.digest import PIECE_BYTES, content_digest, names_digest

LARGE = 10 * PIECE_BYTES


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for label in "ab":
        for i, size in enumerate((100, 3 * PIECE_BYTES, LARGE)):
            file = tmp_path / "photos" / label / f"{i}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(rng.bytes(size))
    return tmp_path / "photos"


def digest(dataset):
    return names_digest(dataset), content_digest(dataset)


def change(file, position):
    content = bytearray(file.read_bytes())
    content[position] ^= 1
    file.write_bytes(content)


def test_a_copy_elsewhere_is_the_same(photos, tmp_path):
    before = digest(scan(photos))
    shutil.copytree(photos, tmp_path / "copy")
    for file in (tmp_path / "copy").rglob("*.jpg"):
        os.utime(file, (1, 1))
    assert digest(scan(tmp_path / "copy")) == before


def test_digests_are_those_of_earlier_runs(tmp_path):
    files = {
        "a/1.jpg": b"one",
        "a/deep/er/2.jpg": b"two" * 2000,
        "b/1.PNG": b"",
        os.fsdecode(b"b/\xff\xfe.gif"): b"odd",
        "ü/ß x.png": b"three",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    dataset = scan(tmp_path)
    whole = ("377c880362cfc9c6afb7cfdbf6eb40c7", "a32b499b8bde4b6528c87fac35c57d93")
    assert digest(dataset) == whole
    part = ("7115d347301d856a08298d620b60bc1c", "33e87278a306818f89f1d06c431559ae")
    assert digest(dataset.take(np.array([4, 0, 2]))) == part
    given = FileDataset(["photos/a/1.jpg", "/elsewhere/2.jpg"], np.array([0, 1]), ("a", "b"))
    assert names_digest(given) == "6589b8c9598f32bd5861166bbc6da740"


@pytest.mark.parametrize("position", [0, LARGE // 2, LARGE - 1])
def test_a_changed_byte_at_the_begin_in_the_middle_and_at_the_end(photos, position):
    before = digest(scan(photos))
    change(photos / "b" / "2.jpg", position)
    assert digest(scan(photos)) != before


@pytest.mark.parametrize("position", [0, 1000, 3 * PIECE_BYTES - 1])
def test_every_byte_of_a_small_file(photos, position):
    before = digest(scan(photos))
    change(photos / "b" / "1.jpg", position)
    assert digest(scan(photos)) != before


def swap(root):
    os.rename(root / "a/0.jpg", root / "x")
    os.rename(root / "b/0.jpg", root / "a/0.jpg")
    os.rename(root / "x", root / "b/0.jpg")


CHANGES: dict[str, Callable[[Path], object]] = {
    "renamed": lambda root: (root / "a/0.jpg").rename(root / "a/9.jpg"),
    "exchanged": swap,
    "moved to another class": lambda root: (root / "a/0.jpg").rename(root / "b/9.jpg"),
    "removed": lambda root: os.unlink(root / "a/0.jpg"),
    "longer": lambda root: (root / "a/2.jpg").write_bytes((root / "a/2.jpg").read_bytes() * 2),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_file_that_was(photos, what):
    before = digest(scan(photos))
    CHANGES[what](photos)
    assert digest(scan(photos)) != before


def test_names_are_compared_without_opening_a_file(photos):
    before = names_digest(scan(photos))
    swap(photos)
    assert names_digest(scan(photos)) == before
    (photos / "a/2.jpg").rename(photos / "a/3.jpg")
    assert names_digest(scan(photos)) != before


def test_the_order_counts(photos):
    dataset = scan(photos)
    assert digest(dataset.take(np.arange(6)[::-1])) != digest(dataset)


def test_more_files_than_a_thread_takes_at_once(tmp_path, monkeypatch):
    for i in range(7):
        (tmp_path / f"{i}.jpg").write_bytes(bytes([i]))
    dataset = FileDataset([str(tmp_path / f"{i}.jpg") for i in range(7)], np.zeros(7, int), ("a",))
    whole = digest(dataset)
    monkeypatch.setattr("resnet_fit.data.digest.FILES_AT_ONCE", 3)
    assert digest(dataset) == whole


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_what_cannot_be_read_is_left_to_the_loader(photos):
    os.unlink(photos / "a/1.jpg")
    os.mkfifo(photos / "a/1.jpg")
    dataset = scan(photos)
    names, content = digest(dataset)
    (photos / "a" / "0.jpg").unlink()
    assert names_digest(dataset) == names
    gone = content_digest(dataset)
    assert gone != content
    assert gone == content_digest(dataset)


def arrays(images, labels):
    return ArrayDataset(np.asarray(images, np.uint8), np.asarray(labels), ("a", "b"))


def test_of_arrays_every_byte_and_label_counts():
    images = np.random.default_rng(0).integers(0, 256, (4, 1, 3, 3), np.uint8)
    before = digest(arrays(images, [0, 1, 0, 1]))
    assert digest(arrays(images.copy(), np.array([0, 1, 0, 1], np.int32))) == before
    assert digest(arrays(images, [0, 1, 1, 1])) != before
    assert digest(arrays(images[::-1], [0, 1, 0, 1])) != before
    assert digest(arrays(images.reshape(4, 1, 9, 1), [0, 1, 0, 1])) != before
    images[3, 0, 2, 2] ^= 1
    assert digest(arrays(images, [0, 1, 0, 1])) != before
