"""A listing is kept where that saves time, and never believed when it may be out of date."""

import os
import shutil
import time

import numpy as np
import pytest
from resnet_fit.data.sources import scan
from test_folder import tree

from resnet_fit.data import listing
from resnet_fit.data.listing import list_images

FILES = ("a/1.jpg", "a/2.jpg", "b/1.jpg", "b/deep/er/2.jpg", "ü/ß.png", "loose.jpg")


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch):
    """The folder of kept listings, of every listing however quick and fresh."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(listing, "SLOW_SECONDS", 0.0)
    monkeypatch.setattr(listing, "SETTLED_SECONDS", -60.0)
    return tmp_path / "cache" / "resnet-fit" / "listings"


@pytest.fixture
def photos(tmp_path):
    return tree(tmp_path / "photos", *FILES)


@pytest.fixture
def looks(monkeypatch):
    """Folders looked into so far."""
    seen, scandir = [], os.scandir

    def noted(folder):
        seen.append(folder)
        return scandir(folder)

    monkeypatch.setattr(listing.os, "scandir", noted)
    return seen


def content(root):
    found = list_images(root)
    return list(found.paths), found.classes, found.counts.tolist(), found.loose


def test_a_kept_listing_is_the_same_without_looking(photos, looks, kept):
    first = content(photos)
    assert first[1:] == (("a", "b", "ü"), [2, 2, 1], 1)
    assert len(looks) == 6
    assert content(photos) == first
    assert len(looks) == 6
    assert [f.suffix for f in kept.iterdir()] == [".npz"]


def swap(photos):
    (photos / "a/1.jpg").rename(photos / "a/0.jpg")


def link_elsewhere(photos):
    (photos / "link").unlink()
    (photos / "link").symlink_to(photos.parent / "other")


def add_and_set_back_the_time(photos):
    before = os.stat(photos / "a")
    (photos / "a/3.jpg").touch()
    os.utime(photos / "a", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert os.stat(photos / "a").st_mtime_ns == before.st_mtime_ns


def replace_a_folder(photos):
    shutil.copytree(photos / "a", photos.parent / "new")
    (photos.parent / "new/1.jpg").rename(photos.parent / "new/7.jpg")
    shutil.rmtree(photos / "a")
    (photos.parent / "new").rename(photos / "a")


@pytest.mark.parametrize(
    "change",
    [
        lambda photos: (photos / "a/3.jpg").touch(),
        lambda photos: (photos / "a/2.jpg").unlink(),
        lambda photos: (photos / "b/deep/er/3.jpg").touch(),
        lambda photos: (photos / "b/deep/new").mkdir(),
        lambda photos: tree(photos, "c/1.jpg"),
        lambda photos: shutil.rmtree(photos / "ü"),
        swap,
        link_elsewhere,
        add_and_set_back_the_time,
        replace_a_folder,
    ],
)
def test_whatever_changes_is_seen(photos, tmp_path, monkeypatch, change):
    tree(tmp_path, "store/7.jpg", "other/8.jpg", "other/9.jpg")
    (photos / "link").symlink_to(tmp_path / "store")
    content(photos)
    time.sleep(0.02)  # a tick of the file system's clock
    change(photos)
    found = content(photos)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    assert found == content(photos)


def test_changes_in_an_instant_cannot_hide(photos, monkeypatch, kept):
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(kept.parents[1]))
    monkeypatch.setattr(listing, "SLOW_SECONDS", 0.0)
    content(photos)
    assert not kept.exists(), "the folder was made a moment ago"


@pytest.mark.parametrize("target", ["store/1.jpg", "nowhere"])
def test_with_links_to_files_nothing_is_kept(photos, tmp_path, kept, target):
    tree(tmp_path, "store/1.jpg")
    (photos / "a/link.jpg").symlink_to(tmp_path / target)
    assert len(list_images(photos).paths) == 6
    assert not kept.exists()


def test_on_a_file_system_without_reliable_times_nothing_is_kept(photos, monkeypatch, kept):
    monkeypatch.setattr(listing, "_fuse_devices", lambda: {os.stat(photos).st_dev})
    content(photos)
    assert not kept.exists()


def test_what_was_quick_is_not_kept(photos, monkeypatch, kept):
    monkeypatch.setattr(listing, "SLOW_SECONDS", 60.0)
    content(photos)
    assert not kept.exists()


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "a folder"])
def test_a_damaged_file_is_not_believed(photos, kept, looks, damage):
    first = content(photos)
    (file,) = kept.iterdir()
    raw = bytearray(file.read_bytes())
    file.unlink()
    if damage == "a folder":
        file.mkdir()
    else:
        raw[raw.index(b"1.jpg")] ^= 1
        file.write_bytes({"cut": raw[: len(raw) // 2], "flipped": raw, "empty": b""}[damage])
    looks.clear()
    assert content(photos) == first
    assert len(looks) == 6


def test_a_listing_by_other_rules_is_not_believed(photos, monkeypatch, looks):
    content(photos)
    looks.clear()
    monkeypatch.setattr(listing, "_RULES", b"2 jpg")
    content(photos)
    assert len(looks) == 6


def test_a_cache_that_cannot_be_written_is_done_without(photos, kept):
    kept.parent.parent.mkdir()
    kept.parent.write_text("in the way")
    assert content(photos) == content(photos)


def test_a_scan_is_the_same_from_a_kept_listing(photos):
    first, second = scan(photos), scan(photos)
    assert list(first.paths) == list(second.paths)
    np.testing.assert_array_equal(first.labels, second.labels)
    assert first.labels.tolist() == [0, 0, 1, 1, 2]


def test_images_beside_no_class_are_counted_again(tmp_path):
    root = tree(tmp_path / "photos", "1.jpg", "2.jpg")
    assert content(root) == content(root) == ([], (), [], 2)
