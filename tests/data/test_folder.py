"""Image folders: what is found in them, and what is said of those that are not right."""

import os

import numpy as np
import pytest

from resnet_fit.data.datasets.folder import Folder, folder, scan
from resnet_fit.errors import UserError


def tree(root, *files):
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def halves(root, train=("cat/1.jpg", "dog/2.jpg"), val=("cat/3.jpg", "dog/4.jpg"), name="val"):
    return tree(root, *(f"train/{f}" for f in train), *(f"{name}/{f}" for f in val))


def names(dataset):
    return [os.path.basename(p) for p in dataset.paths]


@pytest.mark.parametrize(
    ("train", "held_out"),
    [
        *(("train", name) for name in ("val", "valid", "validation", "eval", "test", "testing")),
        *(("training", "validation"), ("Train", "Val"), ("TRAINING", "Testing")),
        *(("training_set", "test_set"), ("train images", "Val-Images"), ("TrainData", "valdata")),
    ],
)
def test_train_and_held_out_folders(tmp_path, train, held_out):
    halves(tmp_path, name=held_out)
    (tmp_path / "train").rename(tmp_path / train)
    train, held_out = folder(tmp_path)
    assert train.classes == held_out.classes == ("cat", "dog")
    assert names(train) == ["1.jpg", "2.jpg"]
    assert names(held_out) == ["3.jpg", "4.jpg"]
    assert train.labels.tolist() == [0, 1]
    assert train.labels.dtype == np.int64


def test_val_is_preferred_to_test(tmp_path):
    halves(tmp_path)
    halves(tmp_path, train=(), val=("cat/9.jpg",), name="test")
    with pytest.warns(UserWarning, match=r"uses train/ and val/; not used: test/$"):
        assert names(folder(tmp_path)[1]) == ["3.jpg", "4.jpg"]


@pytest.mark.parametrize(
    ("held_out", "fraction", "judged_on"),
    [("val", 0.0, "validation"), ("Test-Images", 0.0, "test"), (None, 0.5, "validation")],
)
def test_images_of_a_test_folder_are_test_images(tmp_path, held_out, fraction, judged_on):
    """The best epoch is then chosen by test images, and results say so."""
    root = tmp_path / "test"  # the name of the data set is not that of a part
    if held_out is None:
        tree(root, *(f"{name}/{i}.jpg" for name in ("cat", "dog") for i in range(4)))
    else:
        halves(root, name=held_out)
    data = Folder(path=str(root), validation=fraction)
    assert data.judged_on(data.open().evaluation) == judged_on


@pytest.mark.parametrize("fraction", [None, 0.5])
@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["val/a/1.jpg", "test/b/1.jpg"], "has val/ but no train/"),
        (["test/1.jpg", "cat/1.jpg", "dog/1.jpg"], "has test/ but no train/"),
        (["train/a/1.jpg", "Training/b/1.jpg"], "has Training/, train/, all named like the train"),
        (["train/a/1.jpg", "val/a/1.jpg", "valid/a/1.jpg"], "has val/, valid/, all named like"),
        (["train/train/a/1.jpg", "train/Test/a/1.jpg"], "'Test', 'train' are names of parts, not"),
        (["train/1.jpg", "car/1.jpg", "bus/1.jpg"], "train: 1 images but no class folders"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*not used")
def test_names_of_parts_are_never_classes(tmp_path, files, message, fraction):
    with pytest.raises(UserError, match=message):
        folder(tree(tmp_path, *files), fraction)


def test_classes_may_have_such_words_in_their_names(tmp_path):
    names_ = ("test tube", "train_station", "valley")
    data = folder(tree(tmp_path, *(f"{n}/{i}.jpg" for n in names_ for i in "12")), 0.5)[0]
    assert data.classes == names_


def test_both_a_folder_and_a_fraction_are_refused_whatever_the_case(tmp_path):
    halves(tmp_path, name="Val")
    (tmp_path / "train").rename(tmp_path / "Train")
    with pytest.raises(UserError, match=r"has Val/ and a validation fraction of 0\.2"):
        folder(tmp_path, 0.2)


def test_one_folder_is_split_by_class(tmp_path):
    tree(tmp_path, *(f"{c}/{i:02}.png" for c in ("a", "b") for i in range(20)))
    train, held_out = folder(tmp_path, validation=0.25, seed=3)
    assert np.bincount(held_out.labels).tolist() == [5, 5]
    assert sorted([*train.paths, *held_out.paths]) == sorted(scan(tmp_path).paths)
    again, other = (folder(tmp_path, validation=0.25, seed=s)[1] for s in (3, 4))
    assert list(again.paths) == list(held_out.paths)
    assert list(other.paths) != list(held_out.paths)


def test_train_alone_is_split(tmp_path):
    halves(tmp_path, train=("a/1.png", "a/2.png", "b/1.png", "b/2.png"), val=())
    train, held_out = folder(tmp_path, validation=0.5)
    assert (len(train), len(held_out)) == (2, 2)


def test_order_is_by_name_and_nested_folders_belong_to_their_class(tmp_path):
    data = scan(tree(tmp_path, "b/z.JPG", "b/a.jpeg", "b/deep/er/m.WebP", "a/1.TIF", "a/0.ppm"))
    assert data.classes == ("a", "b")
    assert names(data) == ["0.ppm", "1.TIF", "a.jpeg", "m.WebP", "z.JPG"]
    assert data.labels.tolist() == [0, 0, 1, 1, 1]


def test_hidden_and_foreign_files_are_left_out(tmp_path):
    files = (
        "a/1.jpg",
        "b/1.jpg",
        ".cache/1.jpg",
        "a/.1.jpg",
        "a/.thumbs/2.jpg",
        "a/notes.txt",
        "a/jpg",
    )
    with pytest.warns(UserWarning, match="left out") as warned:
        data = scan(tree(tmp_path, *files, "README.md"))
    assert [str(w.message) for w in warned] == [
        f"{tmp_path}: left out: 1 without extension (a/jpg), 1 .txt (a/notes.txt)"
    ]
    assert data.classes == ("a", "b")
    assert names(data) == ["1.jpg", "1.jpg"]


def test_links_are_followed_but_not_round(tmp_path):
    tree(tmp_path / "store", "1.jpg", "2.jpg")
    tree(tmp_path / "set", "b/1.jpg")
    (tmp_path / "set/a").symlink_to(tmp_path / "store")
    (tmp_path / "set/b/2.jpg").symlink_to(tmp_path / "store/2.jpg")
    (tmp_path / "set/b/up").symlink_to(tmp_path / "set/b")
    assert names(scan(tmp_path / "set")) == ["1.jpg", "2.jpg", "1.jpg", "2.jpg"]


def test_a_broken_link_is_kept_for_the_decoder_to_name(tmp_path):
    tree(tmp_path, "a/1.jpg", "b/1.jpg")
    (tmp_path / "b/2.jpg").symlink_to(tmp_path / "gone.jpg")
    assert names(scan(tmp_path)) == ["1.jpg", "1.jpg", "2.jpg"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "no class folders; expected one folder of images per class"),
        (["1.jpg", "2.jpg"], "2 images but no class folders"),
        (["a/1.jpg"], "only one class, 'a'"),
        (["a/1.jpg", "b/x.heic"], r"no images \(bmp, .*\) in class 'b'"),
        (["train/a/1.jpg", "train/b/1.jpg"], "no folder to validate on .*data.validation: 0.1"),
        (
            ["train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg", "val/B/1.jpg"],
            "class 'B' is not in .*train",
        ),
        (
            ["train/apple/1.jpg", "train/b/1.jpg", "val/aple/1.jpg", "val/b/1.jpg"],
            "Did you mean 'apple'",
        ),
        (
            [*(f"train/{c}/1.jpg" for c in "abcdefgh"), "val/a/1.jpg", "val/b/1.jpg"],
            "val: class 'c', 'd', 'e', 'f', 'g' and 1 more of .* is missing",
        ),
        (
            ["train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg", "val/b/x"],
            "val: no images .* in class 'b'",
        ),
        (["a/1.jpg", "b/1.jpg"], "no folder to validate on"),
    ],
)
def test_what_is_wrong_is_said_with_the_place(tmp_path, files, message):
    with pytest.raises(UserError, match=message) as caught:
        folder(tree(tmp_path, *files))
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_path_that_is_not_there(tmp_path):
    tree(tmp_path, "photos/a/1.jpg", "archive.zip")
    with pytest.raises(UserError, match=r"no such file or folder\. Did you mean 'photos'"):
        folder(tmp_path / "photo")
    with pytest.raises(UserError, match="Did you mean 'photos'"):
        folder(tmp_path / "photoss" / "train")
    with pytest.raises(UserError, match="not a folder; extract it"):
        folder(tmp_path / "archive.zip")
