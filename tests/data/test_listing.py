"""A listing is kept where that saves time, and never believed when it may be out of date."""

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from test_folder import tree

from resnet_fit.data import listing
from resnet_fit.data.datasets.folder import scan
from resnet_fit.data.listing import (
    BESIDE_CLASSES,
    LOST_LINKS,
    WITHOUT_EXTENSION,
    LeftOut,
    list_images,
)
from resnet_fit.errors import UserError

FILES = ("a/1.jpg", "a/2.jpg", "b/1.jpg", "b/deep/er/2.jpg", "ü/ß.png", "loose.jpg", "b/x.HEIC")
LEFT_OUT = {".heic": LeftOut(1, "b/x.HEIC"), BESIDE_CLASSES: LeftOut(1, "loose.jpg")}


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
    return list(found.paths), found.classes, found.counts.tolist(), found.left_out


def test_a_kept_listing_is_the_same_without_looking(photos, looks, kept):
    first = content(photos)
    assert first[1:] == (("a", "b", "ü"), [2, 2, 1], LEFT_OUT)
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


@pytest.mark.filterwarnings("ignore:.*left out")
def test_a_scan_is_the_same_from_a_kept_listing(photos):
    first, second = scan(photos), scan(photos)
    assert list(first.paths) == list(second.paths)
    np.testing.assert_array_equal(first.labels, second.labels)
    assert first.labels.tolist() == [0, 0, 1, 1, 2]


def test_images_beside_no_class_are_counted_again(tmp_path):
    root = tree(tmp_path / "photos", "1.jpg", "2.jpg")
    assert content(root) == content(root) == ([], (), [], {BESIDE_CLASSES: LeftOut(2, "1.jpg")})


# --- what is no image, or no folder that can be read ----------------------------------------


def test_what_is_left_out_is_counted_by_kind(tmp_path):
    files = ("a/1.jpg", "a/2.avif", "a/b/3.AVIF", "a/photo", "a/.hidden", "README.md", "a/4.jfif")
    root = tree(tmp_path, *files)
    (root / "a/link").symlink_to(root / "nowhere")
    (root / "c").symlink_to(root / "c")
    found = list_images(root)
    assert [os.path.basename(path) for path in found.paths] == ["1.jpg", "4.jfif"]
    assert found.left_out == {
        ".avif": LeftOut(2, "a/2.avif"),
        WITHOUT_EXTENSION: LeftOut(1, "a/photo"),
        LOST_LINKS: LeftOut(2, "a/link"),
    }


def test_links_that_lead_round_stop_nothing(tmp_path):
    root = tree(tmp_path / "photos", "a/1.jpg", "a/deep/2.jpg", "b/1.jpg")
    (root / "a/deep/up").symlink_to(root / "a")
    (root / "a/home").symlink_to(root)
    (root / "a/over").symlink_to(root / "b")
    (root / "b/over").symlink_to(root / "a")
    (root / "b/self.jpg").symlink_to(root / "b/self.jpg")
    names = [path.removeprefix(f"{root}/") for path in list_images(root).paths]
    assert names == [
        *("a/1.jpg", "a/deep/2.jpg", "a/over/1.jpg", "a/over/self.jpg"),
        *("b/1.jpg", "b/over/1.jpg", "b/over/deep/2.jpg", "b/self.jpg"),
    ]


def test_a_folder_that_cannot_be_read_is_kept_for_the_decoder_to_name(photos, kept, monkeypatch):
    # Also root may not open what has too long a path.
    monkeypatch.chdir(photos / "b")
    for _ in range(40):
        os.mkdir("x" * 200)
        os.chdir("x" * 200)
    found = list_images(photos)
    assert found.counts.tolist() == [2, 3, 1]
    assert found.paths[4].endswith("x" * 200)
    assert not kept.exists()


def test_a_folder_may_be_nested_more_deeply_than_pythons_calls(tmp_path, monkeypatch):
    monkeypatch.chdir(tree(tmp_path, "a/1.jpg") / "a")
    for _ in range(1500):
        os.mkdir("d")
        os.chdir("d")
    Path("2.jpg").touch()
    found = list_images(tmp_path)
    Path("2.jpg").unlink()
    for _ in range(1500):  # for whoever removes temporary folders by recursion
        os.chdir("..")
        os.rmdir("d")
    assert len(found.paths) == 2


def test_a_root_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UserError, match=r"gone: cannot be read \(No such file"):
        list_images(tmp_path / "gone")
