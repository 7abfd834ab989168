"""A cache of decoded images: the pixels of the files, always, whatever happened to it before."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import bad_images
import numpy as np
import pytest
from PIL import Image

from resnet_fit.data import cache
from resnet_fit.data.augment import HorizontalFlip, Normalize
from resnet_fit.data.cache import cache_images
from resnet_fit.data.dataset import FileDataset, split, subset
from resnet_fit.data.datasets.folder import scan
from resnet_fit.data.loading import FileLoader
from resnet_fit.data.transforms import (
    BadImage,
    CenterCrop,
    RandomResizedCrop,
    Resize,
    decode,
    load,
)
from resnet_fit.errors import RunFailed, UserError

SIDE = 40
EVALUATION = [Resize(SIDE), CenterCrop(32), Normalize((0.5,), (0.25,))]
TRAINING = [RandomResizedCrop(24), HorizontalFlip(), Normalize((0.5,), (0.25,))]


def photo(path, seed, size):
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    colours = Image.fromarray(rng.integers(0, 256, (3, 4, 3), np.uint8))
    colours.resize(size, Image.Resampling.BICUBIC).save(path)


@pytest.fixture
def photos(tmp_path):
    for i in range(20):
        photo(tmp_path / f"photos/{'ab'[i % 2]}/{i:02}.jpg", i, (90 + 7 * i, 200 - 5 * i))
    return tmp_path / "photos"


@pytest.fixture
def place(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def decoded(monkeypatch):
    """Names of the files that were decoded so far, of those decoded in this process."""
    names = []

    def noted(path, *arguments):
        names.append(os.path.basename(path))
        return load(path, *arguments)

    monkeypatch.setattr(cache, "load", noted)
    return names


def cached(photos, place, **options):
    return cache_images(scan(photos), SIDE, place, **{"workers": 0, **options})


def assert_pixels_of_the_files(dataset):
    for i, path in enumerate(dataset.paths):
        expected = load(path, [Resize(SIDE)], np.random.default_rng(0))
        np.testing.assert_array_equal(dataset.copies[i].read(), np.asarray(expected), path)


def same(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        for left, right in zip(one, other, strict=True):
            np.testing.assert_array_equal(left, right)


def pixel_files(place):
    return list(place.glob("*/pixels-*.bin"))


def assert_each_is_there_once(dataset, place):
    (file,) = pixel_files(place)
    copies = [dataset.copies[i] for i in range(len(dataset))]
    assert file.stat().st_size == sum(c.width * c.height * 3 for c in copies)


# --- what is in it --------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_copies_are_the_files_resized(photos, place, workers):
    dataset = cached(photos, place, workers=workers)
    assert_pixels_of_the_files(dataset)
    assert_each_is_there_once(dataset, place)


@pytest.mark.parametrize("kind", bad_images.UNUSUAL)
def test_small_and_unusual_images_stay_as_they_are(tmp_path, place, kind):
    extension, _, make = bad_images.UNUSUAL[kind]
    path = tmp_path / f"image.{extension}"
    make(path)
    dataset = FileDataset((str(path),), np.zeros(1, int), ("a",))
    found = cache_images(dataset, 48, place, workers=0).copies[0]
    np.testing.assert_array_equal(found.read(), np.asarray(decode(path)))


def test_evaluation_sees_what_it_sees_without_a_cache(photos, place):
    with_cache = FileLoader(cached(photos, place), 8, EVALUATION, workers=0)
    same(with_cache, FileLoader(scan(photos), 8, EVALUATION, workers=0))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_a_resize_of_the_same_kind_sees_the_same_pixels(photos, place, interpolation):
    evaluation = [Resize(SIDE, interpolation), CenterCrop(32), Normalize((0.5,), (0.25,))]
    dataset = cached(photos, place, interpolation=interpolation)
    ours, theirs = (FileLoader(d, 5, evaluation, workers=0) for d in (dataset, scan(photos)))
    same(ours, theirs)
    assert len(list(place.iterdir())) == 1
    cached(photos, place, interpolation="nearest")
    assert len(list(place.iterdir())) == 2


def test_training_draws_the_same_parts_of_the_smaller_images(photos, place):
    """The control is made of files that hold what the cache holds."""
    dataset = cached(photos, place)
    for i, path in enumerate(dataset.paths):
        small = Path(str(path).replace("photos", "small")).with_suffix(".png")
        small.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(dataset.copies[i].read()).save(small)
    options = {"shuffle": True, "seed": 3}
    control = FileLoader(scan(photos.parent / "small"), 8, TRAINING, workers=0, **options)
    for workers in (0, 2):
        loader = FileLoader(dataset, 8, TRAINING, workers=workers, **options)
        control.set_position(0)
        for _ in range(2):
            same(loader, control)


def test_a_run_from_the_middle_sees_what_the_uninterrupted_sees(photos, place):
    def loader():
        return FileLoader(cached(photos, place), 3, TRAINING, shuffle=True, seed=5, workers=0)

    whole = loader()
    epochs = [list(whole) for _ in range(2)]
    resumed = loader()
    resumed.set_position(1, 4)
    same(resumed, epochs[1][4:])


def test_parts_of_a_data_set_share_a_cache(photos, place, decoded):
    dataset = scan(photos)
    train, held_out = split(dataset, 0.25)
    for part in (subset(train, 4), train, held_out, dataset):
        assert_pixels_of_the_files(cache_images(part, SIDE, place, workers=0))
    assert len(decoded) == len(set(decoded)) == 20
    assert len(pixel_files(place)) == 1
    chosen = np.array([3, 17, 3])
    assert_pixels_of_the_files(cache_images(dataset, SIDE, place, workers=0).take(chosen))


def test_folders_and_sizes_do_not_mix(tmp_path, place):
    """Two parts whose files have the same names, sizes and times."""
    for part, colour in (("train", (255, 0, 0)), ("val", (0, 255, 0))):
        for name in ("a", "b"):
            path = tmp_path / part / name / "1.bmp"
            path.parent.mkdir(parents=True)
            Image.new("RGB", (50, 60), colour).save(path)
            os.utime(path, (1e9, 1e9))
    for side in (30, 20):
        for part, colour in (("train", (255, 0, 0)), ("val", (0, 255, 0))):
            dataset = cache_images(scan(tmp_path / part), side, place, workers=0)
            pixels = dataset.copies[1].read()
            assert pixels.shape == (side * 60 // 50, side, 3)
            assert (pixels == colour).all()
    assert len(pixel_files(place)) == 4


def test_the_default_place(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    found = cached(photos, None).copies[0].file
    assert found.startswith(str(tmp_path / "xdg/resnet-fit/images"))
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    found = cached(photos, None).copies[0].file
    assert found.startswith(str(tmp_path / "home/.cache/resnet-fit/images"))
    assert "photos" in os.path.basename(os.path.dirname(found))


# --- what changes ---------------------------------------------------------------------


def test_what_is_there_is_not_decoded_again(photos, place, decoded, capsys):
    cached(photos, place)
    assert "decodes 20 images" in capsys.readouterr().out
    before = list(decoded)
    assert_pixels_of_the_files(cached(photos, place))
    assert decoded == before
    assert capsys.readouterr().out == ""


def test_only_new_and_changed_files_are_decoded_and_that_is_said(photos, place, decoded, capsys):
    cached(photos, place)
    photo(photos / "a/00.jpg", 77, (120, 90))
    photo(photos / "b/new.jpg", 78, (90, 120))
    (photos / "a/02.jpg").unlink()
    (photos / "a/04.jpg").rename(photos / "a/05.jpg")
    os.utime(photos / "b/01.jpg", (1e9, 1e9))
    decoded.clear()
    capsys.readouterr()
    assert_pixels_of_the_files(cached(photos, place))
    assert decoded == ["00.jpg", "05.jpg", "01.jpg", "new.jpg"]
    (line,) = capsys.readouterr().out.splitlines()
    assert re.search(r"decodes 4 images \(new or changed\), .* 20 are in the cache", line)


def test_a_file_that_a_link_leads_to_may_change(photos, place, tmp_path):
    photo(tmp_path / "store/1.jpg", 50, (60, 60))
    (photos / "a/link.jpg").symlink_to(tmp_path / "store/1.jpg")
    cached(photos, place)
    photo(tmp_path / "store/1.jpg", 51, (70, 60))
    assert_pixels_of_the_files(cached(photos, place))


@pytest.mark.parametrize(
    ("pattern", "damage"),
    [
        ("index.npz", "flipped"),
        *((p, d) for p in ("index.npz", "pixels-*.bin") for d in ("cut", "gone", "empty")),
    ],
)
def test_a_damaged_cache_is_built_anew(photos, place, decoded, pattern, damage):
    cached(photos, place)
    (file,) = place.glob(f"*/{pattern}")
    raw = bytearray(file.read_bytes())
    if damage == "flipped":
        with np.load(file) as arrays:
            raw[raw.index(arrays["keys"][7].tobytes())] ^= 1
    file.unlink()
    if damage != "gone":
        file.write_bytes({"cut": raw[:-100], "flipped": raw, "empty": b""}[damage])
    decoded.clear()
    assert_pixels_of_the_files(cached(photos, place))
    assert len(decoded) == 20
    assert len(pixel_files(place)) == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_a_cache_lost_while_in_use_is_told(photos, place, workers):
    loader = FileLoader(cached(photos, place), 4, EVALUATION, workers=workers)
    shutil.rmtree(place)
    with pytest.raises(RunFailed, match=r"pixels-\w+\.bin: the image cache is lost \(No such file"):
        list(loader)


# --- bad files ------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_file_is_an_error_that_names_it(photos, place, workers):
    (photos / "b/broken.jpg").touch()
    with pytest.raises(BadImage, match=r"b/broken\.jpg: empty file"):
        cached(photos, place, workers=workers)


def test_what_was_decoded_before_the_error_stays(photos, place, decoded):
    (photos / "b/zzz.jpg").touch()
    with pytest.raises(BadImage):
        cached(photos, place)
    (photos / "b/zzz.jpg").unlink()
    decoded.clear()
    assert_pixels_of_the_files(cached(photos, place))
    assert len(decoded) < 20


@pytest.mark.parametrize("workers", [0, 2])
def test_skipped_files_are_skipped_as_without_a_cache(photos, place, workers):
    (photos / "a/03.jpg").write_bytes(b"not an image")
    (photos / "b/zzz.jpg").touch()
    loaders = [
        FileLoader(data, 4, EVALUATION, workers=workers, shuffle=True, on_bad_image="skip")
        for data in (cached(photos, place, workers=workers, on_bad_image="skip"), scan(photos))
    ]
    same(*loaders)
    assert loaders[0].skipped == loaders[1].skipped
    assert len(loaders[0].skipped) == 2


def test_an_unreadable_file_is_decoded_once_and_again_where_it_is_an_error(
    photos, place, decoded, capsys
):
    (photos / "a/00.jpg").write_bytes(b"no image")
    cached(photos, place, on_bad_image="skip")
    decoded.clear()
    capsys.readouterr()
    dataset = cached(photos, place, on_bad_image="skip")
    assert (decoded, capsys.readouterr().out) == ([], "")
    assert [dataset.copies[i] is None for i in range(20)] == [True, *[False] * 19]
    with pytest.raises(BadImage, match=r"00\.jpg"):
        cached(photos, place)
    photo(photos / "a/00.jpg", 0, (90, 200))
    decoded.clear()
    assert_pixels_of_the_files(cached(photos, place))
    assert decoded == ["00.jpg"]


def test_an_image_that_was_unreadable_for_a_time(photos, place, monkeypatch):
    """As on a file server that did not answer: neither its size nor its time is another one."""

    def unreadable(path, *arguments):
        if path.endswith("00.jpg"):
            raise BadImage("00.jpg: input/output error")
        return load(path, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(cache, "load", unreadable)
        cached(photos, place, on_bad_image="skip")
    assert_pixels_of_the_files(cached(photos, place))
    assert_pixels_of_the_files(cached(photos, place, on_bad_image="skip"))


def test_an_index_whose_writing_was_interrupted_is_not_lost(photos, place, decoded, monkeypatch):
    monkeypatch.setattr(cache, "NOTE_SECONDS", 0.0)
    writes = []
    real = cache._Index.write

    def interrupted(index, folder):
        writes.append(len(index.keys))
        if len(writes) == 8:
            raise KeyboardInterrupt
        real(index, folder)

    monkeypatch.setattr(cache._Index, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cached(photos, place)
    decoded.clear()
    dataset = cached(photos, place)
    assert_pixels_of_the_files(dataset)
    assert_each_is_there_once(dataset, place)
    assert len(decoded) == 20 - 8


def test_only_unreadable_files(tmp_path, place):
    for name in ("a/1.jpg", "b/1.jpg"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True)
        (tmp_path / "photos" / name).touch()
    dataset = cached(tmp_path / "photos", place, on_bad_image="skip")
    assert [dataset.copies[i] for i in range(2)] == [None, None]


# --- builds that end otherwise --------------------------------------------------------

BUILD = """
import sys, time
from pathlib import Path
from resnet_fit.data import cache
from resnet_fit.data.datasets.folder import scan

cache.NOTE_SECONDS = 0.0
add = cache._Writer.add

def slowly(self, key, pixels):
    add(self, key, pixels)
    print("added", flush=True)
    time.sleep(float(sys.argv[3]))

cache._Writer.add = slowly
cache.cache_images(scan(Path(sys.argv[1])), 40, sys.argv[2], workers=1)
"""


def build(photos, place, pause):
    return subprocess.Popen(
        [sys.executable, "-c", BUILD, str(photos), str(place), str(pause)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )


@pytest.mark.parametrize("deadly", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_build_is_not_taken_for_whole_and_not_lost(photos, place, decoded, deadly):
    with build(photos, place, 0.2) as process:
        added = 0
        while added < 5:
            line = process.stdout.readline()
            assert line, process.communicate()
            added += line == "added\n"
        process.send_signal(deadly)
        process.communicate(timeout=30)
    assert process.returncode != 0
    (folder,) = place.iterdir()
    (folder / ".index.npz.part1").touch()  # as when the index itself was being written
    with open(pixel_files(place)[0], "ab") as file:
        file.write(b"pixels that were not noted")
    assert_pixels_of_the_files(cached(photos, place))
    assert 10 < len(decoded) < 17
    assert sorted(re.sub(r"-\w+\.", ".", f.name) for f in folder.iterdir()) == [
        ".lock",
        "index.npz",
        "pixels.bin",
    ]


def test_two_builds_at_once_share_the_work(photos, place, decoded):
    both = [build(photos, place, 0.05) for _ in range(2)]
    texts = ["".join(process.communicate(timeout=60)) for process in both]
    assert [process.returncode for process in both] == [0, 0], texts
    assert sum("waits for another process" in text for text in texts) == 1
    assert sum("decodes 20 images" in text for text in texts) == 1
    dataset = cached(photos, place)
    assert_pixels_of_the_files(dataset)
    assert decoded == []
    assert_each_is_there_once(dataset, place)


def test_an_addition_leaves_those_alone_who_read(photos, place):
    first = cached(photos, place)
    photo(photos / "b/new.jpg", 78, (90, 120))
    cached(photos, place)
    assert_pixels_of_the_files(first)


def test_a_disk_too_small_is_told_before(photos, place, decoded, monkeypatch):
    usage = shutil.disk_usage(photos)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=100_000))
    with pytest.raises(
        UserError, match=r"0 MB are free on this disk, but .* about 0 MB; see data.cache.path"
    ) as caught:
        cached(photos, place)
    assert "\n" not in str(caught.value)
    assert decoded == []


def test_a_disk_that_gets_full_keeps_what_was_noted(photos, place, decoded, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(cache, "NOTE_SECONDS", 0.0)
        add, count = cache._Writer.add, [0]

        def full(self, key, pixels):
            count[0] += 1
            if count[0] > 8:
                raise OSError(28, "No space left on device")
            add(self, key, pixels)

        patch.setattr(cache._Writer, "add", full)
        with pytest.raises(RunFailed, match=r"could not be written \(No space left on device\)"):
            cached(photos, place)
    decoded.clear()
    assert_pixels_of_the_files(cached(photos, place))
    assert len(decoded) == 12


def test_a_place_that_cannot_be(photos, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot be made \(Not a directory\); see data.cache.path"):
        cached(photos, tmp_path / "file")
    with pytest.raises(UserError, match="shorter_side: received 0"):
        cache_images(scan(photos), 0, tmp_path)
    with pytest.raises(UserError, match="workers: received -1"):
        cached(photos, tmp_path, workers=-1)


# --- progress -------------------------------------------------------------------------


def test_plain_lines_tell_how_far_it_is(photos, place, monkeypatch, capsys):
    monkeypatch.setattr(cache, "NOTE_SECONDS", -1.0)
    cached(photos, place)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 21
    assert lines[10].endswith("10 of 20 images decoded, 0 minutes left")
    assert all(line.isprintable() for line in lines)


def test_a_terminal_shows_a_bar(photos, place, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    cached(photos, place)
    assert "────" in capsys.readouterr().out


# --- speed ----------------------------------------------------------------------------


def test_reading_a_copy_is_faster_than_decoding(tmp_path, place):
    for name in ("a", "b"):
        photo(tmp_path / "photos" / name / "1.jpg", 1, (1500, 1200))
    dataset = cached(tmp_path / "photos", place)

    def seconds(work):
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    reading = min(seconds(lambda: dataset.copies[0].read()) for _ in range(5))
    decoding = min(seconds(lambda: decode(dataset.paths[0])) for _ in range(5))
    assert reading < decoding / 5
