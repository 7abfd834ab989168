"""What is found in a folder of class folders, and in which order."""

import os
from pathlib import Path

import pytest
from test_folder import tree

from resnet_fit.data.listing import (
    BESIDE_CLASSES,
    LOST_LINKS,
    WITHOUT_EXTENSION,
    LeftOut,
    list_images,
)
from resnet_fit.errors import UserError


def names(root):
    """The paths below the folder."""
    return [path.removeprefix(f"{root}/") for path in list_images(root).paths]


def test_images_are_sorted_by_class_and_name(tmp_path):
    files = ("b/1.jpg", "ü/ß.png", "b/deep/er/2.jpg", "a/2.jpg", "a/1.JPG", "loose.jpg", "b/x.HEIC")
    found = list_images(tree(tmp_path, *files))
    assert names(tmp_path) == ["a/1.JPG", "a/2.jpg", "b/1.jpg", "b/deep/er/2.jpg", "ü/ß.png"]
    assert found.classes == ("a", "b", "ü")
    assert found.counts == [2, 2, 1]
    assert found.left_out == {
        ".heic": LeftOut(1, "b/x.HEIC"),
        BESIDE_CLASSES: LeftOut(1, "loose.jpg"),
    }


def test_names_are_sorted_as_the_bytes_that_they_are(tmp_path):
    stems = (b"z", "\uffee".encode(), b"\xff", "\U0001f600".encode())  # as text in another order
    for stem in stems:
        tree(tmp_path, f"a/{os.fsdecode(stem)}.jpg")
    assert names(tmp_path) == [f"a/{os.fsdecode(stem)}.jpg" for stem in sorted(stems)]


def test_images_beside_no_class_are_counted(tmp_path):
    root = tree(tmp_path, "1.jpg", "2.jpg")
    assert list_images(root) == ([], (), [], {BESIDE_CLASSES: LeftOut(2, "1.jpg")})


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
    assert names(root) == [
        *("a/1.jpg", "a/deep/2.jpg", "a/over/1.jpg", "a/over/self.jpg"),
        *("b/1.jpg", "b/over/1.jpg", "b/over/deep/2.jpg", "b/self.jpg"),
    ]


def test_a_folder_that_cannot_be_read_is_kept_for_the_decoder_to_name(tmp_path, monkeypatch):
    # Also root may not open what has too long a path.
    monkeypatch.chdir(tree(tmp_path, "a/1.jpg", "b/1.jpg", "b/z.jpg") / "b")
    for _ in range(40):
        os.mkdir("x" * 200)
        os.chdir("x" * 200)
    found = list_images(tmp_path)
    assert found.counts == [1, 3]
    assert found.paths[2].endswith("x" * 200)


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
