"""`resnet-fit check` finds what is wrong with data, and trains nothing."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resnet_fit import fit, parse_config, resume
from resnet_fit.cli import main
from resnet_fit.data.dataset import ArrayDataset
from resnet_fit.errors import UserError
from resnet_fit.reports.check import examine

GREY = {"red": (200, 10, 20), "blue": (10, 20, 200)}
CONFIG = {
    "model": {"depth": [1, 1], "stem": "cifar", "width": 4},
    "data": {"name": "folder", "batch_size": 4, "workers": 0},
    "augmentation": {
        "train": [{"random_resized_crop": {"size": 16}}, "normalize"],
        "eval": [{"resize": {"size": 16}}, {"center_crop": {"size": 16}}, "normalize"],
    },
    "optimizer": {"name": "sgd", "learning_rate": 0.01},
    "training": {"epochs": 1},
}


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for part, count in (("train", 6), ("val", 3)):
        for name, colour in GREY.items():
            folder = tmp_path / "photos" / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                noise = rng.integers(0, 40, (20 + i, 30, 3))
                Image.fromarray((noise + colour).astype("uint8")).save(folder / f"{i}.png")
    return tmp_path / "photos"


@pytest.fixture
def config(photos, write_yaml):
    return write_yaml(CONFIG | {"data": CONFIG["data"] | {"path": str(photos)}})


def run(capsys, *arguments):
    code = main(["check", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_good_data(config, capsys, tmp_path):
    code, out, _ = run(capsys, "--config", config)
    assert code == 0
    rows = [line.split() for line in out.splitlines()]
    assert ["red", "6", "3"] in rows
    assert ["all", "12", "6"] in rows
    assert "widths 30 to 30 (median 30), heights 20 to 25 (median 23)" in out
    assert "train and evaluation have no image in common" in out
    assert not (tmp_path / "runs").exists()


def test_bad_files_and_duplicates(config, photos, capsys):
    (photos / "train/red/broken.jpg").write_bytes(b"not an image")
    (photos / "val/blue/empty.png").write_bytes(b"")
    os.link(photos / "train/red/0.png", photos / "val/red/copy.png")
    for name in ("second.png", "third.png"):
        os.link(photos / "train/red/0.png", photos / "train/red" / name)
    code, out, err = run(capsys, "--config", config)
    assert code == 1
    assert "1 images are in train and in evaluation" in out
    assert "; 2 images repeat an earlier one\n" in out
    assert f"{photos}/train/red/0.png = {photos}/val/red/copy.png" in out
    assert sum(line.startswith("unreadable: ") for line in out.splitlines()) == 2
    assert err.splitlines() == ["resnet-fit: unreadable images: 2, listed above"]


def test_mean_and_deviation_are_numpys(config, photos, capsys):
    _, out, _ = run(capsys, "--config", config)
    pixels = np.concatenate(
        [np.asarray(Image.open(f)).reshape(-1, 3) for f in photos.glob("train/*/*.png")]
    )
    mean = ", ".join(f"{v:.4f}" for v in pixels.mean(0) / 255)
    std = ", ".join(f"{v:.4f}" for v in pixels.std(0) / 255)
    assert f"mean {mean}; standard deviation {std}" in out


def test_data_in_memory(repository, capsys):
    code, out, _ = run(capsys, "--config", repository / "configs/resnet18_digits.yaml")
    assert code == 0
    assert "all 8x8" in out


def test_images_in_memory_are_told_by_their_names():
    pixels = np.zeros((2, 1, 4, 4), np.uint8)
    named = ArrayDataset(pixels, [0, 1], ("a", "b"), ("scan 7", "scan 8"))
    assert set(examine(named).names.values()) == {"scan 7"}
    assert set(examine(replace(named, names=None)).names.values()) == {"image 0"}


def test_mistakes_are_one_line(capsys, tmp_path):
    code, _, err = run(capsys, "--config", tmp_path / "none.yaml")
    assert (code, len(err.splitlines())) == (2, 1)
    code, _, err = run(capsys)
    assert (code, len(err.splitlines())) == (2, 1)


def move(place, name):
    """Give a file or folder a name of any bytes."""
    target = os.path.join(os.fsencode(place.parent), name)
    try:
        os.rename(os.fsencode(place), target)
    except OSError:
        pytest.skip("this file system takes text only")
    return Path(os.fsdecode(target))


@pytest.fixture
def odd_photos(photos):
    """A folder, classes and files of names that are no text, or look like markup or two lines."""
    for part in ("train", "val"):
        move(photos / part / "red", b"caf\xe9")
        move(photos / part / "blue", b"[red]")
    folder = move(photos, b"photos\xff [old]")
    (folder / "train/[red]/x\n[b].jpg").write_bytes(b"not an image")
    os.mkfifo(folder / "train/[red]/pipe.jpg")
    (folder / "train/[red]/y.heic").touch()
    return folder


def test_names_of_any_bytes(odd_photos, write_yaml, capsys):
    config = write_yaml(CONFIG | {"data": CONFIG["data"] | {"path": str(odd_photos)}})
    code, out, err = run(capsys, "--config", config)
    assert code == 1
    rows = [line.split() for line in out.splitlines()]
    assert ["[red]", "6", "3"] in rows
    assert [r"caf\xe9", "6", "3"] in rows
    place = rf"{odd_photos.parent}/photos\xff [old]/train"
    assert [line for line in out.splitlines() if line.startswith("unreadable")] == [
        f"unreadable: {place}/[red]/pipe.jpg: not a file but a device, pipe or socket",
        rf"unreadable: {place}/[red]/x\n[b].jpg: not an image",
    ]
    assert f"resnet-fit: warning: {place}: left out: 1 .heic ([red]/y.heic)" in err.splitlines()


@pytest.mark.filterwarnings("ignore:.*left out")
@pytest.mark.parametrize("cached", [False, True])
def test_a_run_on_names_of_any_bytes(odd_photos, tmp_path, cached, capsys):
    cache = {"shorter_side": 20, "path": str(tmp_path / "cache")} if cached else None
    data = {"path": str(odd_photos), "workers": 1, "on_bad_image": "skip", "cache": cache}
    config = parse_config(CONFIG | {"data": CONFIG["data"] | data})
    done = fit(config, tmp_path, "skips")
    place = rf"{tmp_path}/photos\xff [old]/train/[red]"
    reasons = [
        f"{place}/pipe.jpg: not a file but a device, pipe or socket",
        rf"{place}/x\n[b].jpg: not an image",
    ]
    assert (done.folder / "skipped_images.txt").read_text().splitlines() == reasons
    state = json.loads((done.folder / "checkpoints/last/state.json").read_text())
    assert set(state["loader"]["skipped"]) == {"[red]/pipe.jpg", "[red]/x\n[b].jpg"}
    assert resume(done.folder, ["training.epochs=2"]).summary["skipped_images"] == 2
    moved = odd_photos.rename(tmp_path / "moved")
    again = resume(done.folder, [f"data.path={moved}", "training.epochs=3"])
    assert again.summary["skipped_images"] == 2
    lines = (done.folder / "skipped_images.txt").read_text().splitlines()
    assert all(line.startswith(f"{moved}/train/") for line in lines)


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_may_skip_bad_images_and_lists_them(photos, tmp_path, workers, cached):
    bad = photos / "train/red/broken.jpg"
    bad.write_bytes(b"not an image")
    cache = {"shorter_side": 20, "path": str(tmp_path / "cache")} if cached else None
    data = CONFIG["data"] | {"path": str(photos), "workers": workers, "cache": cache}
    with pytest.raises(UserError, match=r"broken\.jpg"):
        fit(parse_config(CONFIG | {"data": data}), tmp_path, "stops")
    config = parse_config(CONFIG | {"data": data | {"on_bad_image": "skip"}})
    result = fit(config, tmp_path, "skips")
    assert result.summary["skipped_images"] == 1
    lines = (result.folder / "skipped_images.txt").read_text().splitlines()
    assert lines == [f"{bad}: not an image"]


def test_the_first_image_of_all_may_be_bad_too(photos, tmp_path):
    """Progressive resizing looks at one training image before the first batch."""
    first = min((photos / "train").rglob("*.*"))
    first.write_bytes(b"not an image")
    data = CONFIG["data"] | {"path": str(photos), "on_bad_image": "skip"}
    config = parse_config(CONFIG | {"data": data}, ["augmentation.progressive={start: 8}"])
    assert fit(config, tmp_path, "skips").summary["skipped_images"] == 1


@pytest.mark.parametrize("cached", [False, True])
def test_evaluation_never_skips(photos, tmp_path, cached):
    (photos / "val/red/broken.jpg").write_bytes(b"not an image")
    cache = {"shorter_side": 20, "path": str(tmp_path / "cache")} if cached else None
    data = CONFIG["data"] | {"path": str(photos), "on_bad_image": "skip", "cache": cache}
    with pytest.raises(UserError, match=r"val/red/broken\.jpg"):
        fit(parse_config(CONFIG | {"data": data}), tmp_path, "stops")
