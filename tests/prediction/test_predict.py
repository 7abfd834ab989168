"""`resnet-fit predict` says what the network says, of good files, and what is wrong with others."""

from __future__ import annotations

import copy
import csv
import io
import json
import os
import pty
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import paddle
import pytest
from conftest import TINY
from PIL import Image
from screen import Screen
from small_onnx import write

import resnet_fit
from resnet_fit import fit, open_run, parse_config
from resnet_fit.cli import main
from resnet_fit.prediction.formats import Layout, Row, text

COLOURS = {
    "model": {"depth": [1, 1], "stem": "cifar", "width": 4},
    "data": {"name": "folder", "batch_size": 6, "workers": 0, "validation": 0.25},
    "augmentation": {
        "train": [{"random_resized_crop": {"size": 12}}, "normalize"],
        "eval": [{"resize": {"size": 14}}, {"center_crop": {"size": 12}}, "normalize"],
    },
    "optimizer": {"name": "momentum", "learning_rate": 0.05},
    "training": {"epochs": 1},
    "callbacks": {"visualdl": None, "weight_average": {"decay": 0.5}},
}


def draw(rng, size=(20, 24)):
    """Smooth, so that a JPEG of it is still the same image."""
    small = Image.fromarray(rng.integers(0, 256, (3, 4, 3), np.uint8))
    return small.resize(size[::-1], Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def folder_run(tmp_path_factory):
    """A run on image files, and the folder that it was trained on."""
    root = tmp_path_factory.mktemp("folder")
    rng = np.random.default_rng(0)
    for name in ("red", "green", "blue"):
        (root / "photos" / name).mkdir(parents=True)
        for i in range(4):
            draw(rng, (20 + i, 24)).save(root / "photos" / name / f"{i}.png")
    config = copy.deepcopy(COLOURS)
    config["data"]["path"] = str(root / "photos")
    return fit(parse_config(config), root, "run").folder


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    config = copy.deepcopy(TINY) | {"callbacks": {"visualdl": None}}
    config["training"]["epochs"] = 1
    return fit(parse_config(config), tmp_path_factory.mktemp("digits"), "run").folder


def predict(capsys, *arguments):
    capsys.readouterr()  # of trainings
    code = main(["predict", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err.splitlines()


def rows_of(out):
    return list(csv.DictReader(io.StringIO(out)))


def table(capsys, run, *arguments):
    """Probabilities by file and class."""
    code, out, err = predict(capsys, run, *arguments, "--format", "json", "--top", 1000)
    assert (code, err) == (0, [])
    return {
        row["file"]: {p["class"]: p["probability"] for p in row["predictions"]}
        for row in json.loads(out)
    }


def test_a_folder_in_order_with_the_networks_own_probabilities(folder_run, capsys):
    photos = folder_run.parent / "photos"
    files = sorted(map(str, photos.rglob("*.png")))
    found = table(capsys, folder_run, photos, "--batch-size", 5)
    assert list(found) == files
    run = open_run(folder_run)
    expected = paddle.nn.functional.softmax(run.logits(files)).numpy()
    assert np.allclose(run.probabilities(files), expected, atol=1e-6)
    for file, row in zip(files, expected, strict=True):
        assert found[file] == pytest.approx(dict(zip(run.classes, row, strict=True)), abs=1e-5)
        assert list(found[file].values()) == sorted(found[file].values(), reverse=True)


def test_binary_cross_entropy_makes_each_class_a_sigmoid(tmp_path, tiny, capsys):
    tiny["loss"] = {"name": "binary_cross_entropy"}
    tiny["training"]["epochs"] = 1
    run = open_run(fit(parse_config(tiny), tmp_path, "run").folder)
    images = np.random.default_rng(0).integers(0, 17, (3, 1, 8, 8), np.uint8) * 15
    expected = 1 / (1 + np.exp(-run.logits(images).numpy()))
    assert run.probabilities(images) == pytest.approx(expected, abs=1e-6)
    Image.fromarray(images[0, 0]).save(tmp_path / "0.png")
    found = table(capsys, tmp_path / "run", tmp_path / "0.png")[str(tmp_path / "0.png")]
    assert [found[name] for name in run.classes] == pytest.approx(expected[0].tolist(), abs=1e-5)


def test_the_digits_of_a_run_on_arrays_as_files(digits_run, tmp_path, capsys):
    held_out = open_run(digits_run).config.data.load()[1]
    names = [str(tmp_path / f"{i:02}.png") for i in range(40)]
    for name, image in zip(names, held_out.images[:40], strict=True):
        Image.fromarray(image[0]).save(name)
    code, out, err = predict(capsys, digits_run, tmp_path, "--top", 1, "--format", "csv")
    rows = rows_of(out)
    assert (code, err, [row["file"] for row in rows]) == (0, [], names)
    expected = open_run(digits_run).classify(held_out.images[:40])
    assert [row["class_1"] for row in rows] == expected
    Image.new("L", (9, 8)).save(tmp_path / "wide.png")
    code, out, err = predict(capsys, digits_run, tmp_path / "wide.png", names[0], "--top", 1)
    assert (code, out.split()[0]) == (1, names[0])
    assert err == [
        f"resnet-fit: {tmp_path}/wide.png: 9x8 pixels, but this network was trained on images of "
        "8x8",
        "resnet-fit: files without a prediction: 1 of 2",
    ]


def test_every_kind_of_image_file_is_read_as_in_training(folder_run, tmp_path, capsys):
    """The same picture in many forms gets much the same answer, and a turned one another."""
    upright = draw(np.random.default_rng(5), (30, 40))
    upright.save(tmp_path / "plain.png")
    upright.save(tmp_path / "jpeg.jpg", quality=100, subsampling=0)
    upright.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100)
    upright.convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "palette.png")
    upright.save(
        tmp_path / "animated.gif", save_all=True, append_images=[Image.new("RGB", (40, 30))]
    )
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by a quarter clockwise
    upright.transpose(Image.Transpose.ROTATE_90).save(
        tmp_path / "turned.jpg", quality=100, subsampling=0, exif=exif
    )
    grey = np.asarray(upright.convert("L"))
    Image.fromarray(grey).save(tmp_path / "grey8.png")
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "grey16.png")
    found = {Path(k).stem: v for k, v in table(capsys, folder_run, tmp_path).items()}
    for name in ("jpeg", "cmyk", "turned", "palette", "animated"):
        assert found[name] == pytest.approx(found["plain"], abs=0.03), name
    assert found["grey16"] == pytest.approx(found["grey8"], abs=1e-6)
    unturned = np.asarray(Image.open(tmp_path / "turned.jpg"))  # as Pillow has it, without EXIF
    Image.fromarray(unturned).save(tmp_path / "unturned.png")
    other = table(capsys, folder_run, tmp_path / "unturned.png").popitem()[1]
    assert max(abs(other[k] - found["turned"][k]) for k in other) > 1e-3


@pytest.mark.parametrize("form", ["text", "csv", "json"])
def test_bad_files_are_named_and_do_not_stop_the_others(folder_run, tmp_path, capsys, form):
    good = sorted(map(str, (folder_run.parent / "photos").rglob("*.png")))
    whole = Path(good[0]).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "empty.png").touch()
    os.mkfifo(tmp_path / "pipe.jpg")
    names = [
        tmp_path / name for name in ("cut.png", "text.jpg", "empty.png", "none.jpg", "pipe.jpg")
    ]
    mixed = [good[0], names[0], names[1], good[1], *names[2:], good[2]]
    code, out, err = predict(capsys, folder_run, *mixed, "--format", form, "--batch-size", 2)
    assert code == 1
    for name, line in zip(names, err, strict=False):
        assert line.startswith(f"resnet-fit: {name}: ")
    assert err[1].endswith("not an image")
    assert err[3].endswith("no such file or directory")
    assert err[5:] == ["resnet-fit: files without a prediction: 5 of 8"]
    if form == "text":
        answered = [line.split()[0] for line in out.splitlines()]
    elif form == "csv":
        answered = [row["file"] for row in rows_of(out)]
    else:
        answered = [row["file"] for row in json.loads(out)]
    assert answered == good[:3]
    code, out, err = predict(capsys, folder_run, names[1], "--format", form)
    assert (code, len(err)) == (1, 2)
    if form == "json":
        assert json.loads(out) == []


def test_an_image_too_small_for_its_crop_is_one_bad_file(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(3):
            draw(rng).save(tmp_path / "photos" / name / f"{i}.png")
    config = copy.deepcopy(COLOURS)
    config["data"] |= {"path": str(tmp_path / "photos"), "batch_size": 2}
    config["augmentation"]["eval"] = [{"center_crop": {"size": 12}}, "normalize"]
    run = fit(parse_config(config), tmp_path, "run").folder
    Image.new("RGB", (5, 9)).save(tmp_path / "small.png")
    good = tmp_path / "photos/a/0.png"
    code, out, err = predict(capsys, run, tmp_path / "small.png", good)
    assert (code, out.split()[0]) == (1, str(good))
    assert err[0].startswith(f"resnet-fit: {tmp_path}/small.png: center_crop: 12 px do not fit")


def test_names_of_any_bytes(folder_run, tmp_path, capsys):
    photo = (folder_run.parent / "photos/red/0.png").read_bytes()
    for name in (b"caf\xe9.png", b"two\nlines.png", b'[red] , ".png'):
        try:
            with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
                file.write(photo)
        except OSError:
            pytest.skip("this file system takes text only")
    code, out, err = predict(capsys, folder_run, tmp_path, "--top", 1)
    assert (code, err, len(out.splitlines())) == (0, [], 3)
    assert {r"two\nlines.png", r"caf\xe9.png"} <= {
        Path(line.split()[0]).name for line in out.splitlines()
    }
    _, out, _ = predict(capsys, folder_run, tmp_path, "--format", "csv")
    names = {Path(row["file"]).name for row in rows_of(out)}
    assert names == {r"caf\xe9.png", "two\nlines.png", '[red] , ".png'}
    _, out, _ = predict(capsys, folder_run, tmp_path, "--format", "json")
    assert {row["file"] for row in json.loads(out)} == {
        os.path.join(tmp_path, os.fsdecode(name)) for name in os.listdir(tmp_path)
    }


def test_csv_has_all_of_the_top_in_columns(folder_run, capsys):
    photos = folder_run.parent / "photos"
    header = "file,class_1,probability_1,class_2,probability_2"
    code, out, _ = predict(capsys, folder_run, photos, "--format", "csv", "--top", 2)
    assert (code, out.splitlines()[0]) == (0, header)
    _, out, _ = predict(capsys, folder_run, photos, "--format", "csv", "--top", 99)
    row = rows_of(out)[0]
    assert len(row) == 1 + 2 * 3
    assert sum(float(row[f"probability_{i}"]) for i in (1, 2, 3)) == pytest.approx(1, abs=1e-5)


def test_a_checkpoint_and_its_average(folder_run, capsys):
    photo = folder_run.parent / "photos/red/0.png"
    plain = table(capsys, folder_run, photo, "--checkpoint", "last")
    averaged = table(capsys, folder_run, photo, "--checkpoint", "last", "--average")
    expected = open_run(folder_run, "last", average=True)
    row = dict(zip(expected.classes, expected.probabilities([photo])[0], strict=True))
    assert averaged[str(photo)] == pytest.approx(row, abs=1e-5)
    assert averaged != plain


def test_text_is_aligned_and_fits_a_narrow_terminal():
    files, classes = ["photos/a.jpg", "b.jpg"], ("cat", "tiger")
    rows = [Row.of(f, np.float32([0.25, 0.75]), classes, 2) for f in files]
    wide, narrow, redirected = (
        "".join(text(rows, Layout.of(2, files, classes, width))) for width in (80, 30, None)
    )
    assert wide.splitlines() == [
        "photos/a.jpg  tiger  75.00 %  cat    25.00 %",
        "b.jpg         tiger  75.00 %  cat    25.00 %",
    ]
    assert redirected == wide
    assert narrow.splitlines() == [
        "photos/a.jpg  tiger  75.00 %",
        "  cat    25.00 %",
        "b.jpg         tiger  75.00 %",
        "  cat    25.00 %",
    ]


def test_text_is_aligned_where_characters_are_wide():
    files, classes = ["写真/a.jpg", "b.jpg"], ("猫", "tiger")
    rows = [Row.of(f, np.float32([0.25, 0.75]), classes, 2) for f in files]
    wide, narrow = ("".join(text(rows, Layout.of(2, files, classes, width))) for width in (80, 26))
    assert wide.splitlines() == [
        "写真/a.jpg  tiger  75.00 %  猫     25.00 %",
        "b.jpg       tiger  75.00 %  猫     25.00 %",
    ]
    assert narrow.splitlines() == [
        "写真/a.jpg",
        "  tiger  75.00 %",
        "  猫     25.00 %",
        "b.jpg",
        "  tiger  75.00 %",
        "  猫     25.00 %",
    ]


MISTAKES = [
    (["{run}"], "arguments are required: IMAGE|FOLDER|-"),
    (["{run}", "{photo}", "--top", "0"], "--top: received '0', expected a whole number from 1"),
    (
        ["{run}", "{photo}", "--top", "x"],
        "--top: received 'x', expected a whole number from 1",
    ),
    (
        ["{run}", "{photo}", "--batch-size", "0"],
        "--batch-size: received '0', expected a whole number from 1",
    ),
    (["{run}", "{photo}", "--format", "xml"], "argument --format: invalid choice: 'xml'"),
    (["{run}", "-", "{photo}"], "-: standard input cannot be read beside"),
    (["{run}x", "{photo}"], "no such file or folder. Did you mean 'run'?"),
    (["{run}", "{photo}", "--checkpoint", "bset"], "no checkpoint 'bset'. Did you mean 'best'?"),
    (["{photos}", "{photo}"], "not a run's folder: there is no folder checkpoints in it"),
    (["{photo}", "{photo}"], "not an ONNX file that onnxruntime can open"),
    (["{photo}", "{photo}", "--checkpoint", "best"], "--checkpoint: for a run"),
    (["{photo}", "{photo}", "--average"], "--average: for a run"),
    (["{photo}", "{photo}", "--device", "gpu"], "an ONNX file is computed on the CPU"),
    (
        ["{run}", "{photo}", "--device", "tpu"],
        "device: received 'tpu', expected auto, cpu, gpu or gpu:N",
    ),
    (["{run}", "{run}/checkpoints"], "no image in this folder"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_mistakes_are_told_in_one_line(folder_run, arguments, message, capsys):
    photos = folder_run.parent / "photos"
    names = {"run": folder_run, "photos": photos, "photo": photos / "red/0.png"}
    code, out, err = predict(capsys, *(a.format(**names) for a in arguments))
    assert (code, out, len(err)) == (2, "", 1)
    assert message in err[0]


def test_a_run_that_was_killed_before_its_first_checkpoint(tmp_path, capsys):
    (tmp_path / "killed/checkpoints").mkdir(parents=True)
    code, _, err = predict(capsys, tmp_path / "killed", tmp_path)
    assert (code, len(err)) == (2, 1)
    assert "checkpoints: no checkpoint is there; a run that ended before it" in err[0]


def test_without_an_average(digits_run, tmp_path, capsys):
    code, _, err = predict(capsys, digits_run, tmp_path, "--average")
    assert (code, len(err)) == (2, 1)
    assert "trained without callbacks.weight_average" in err[0]


# --- as a program of its own ----------------------------------------------------------


@pytest.fixture
def model(tmp_path):
    """An exported network, which starts sooner than Paddle does."""
    return write(tmp_path / "small.onnx")


def start(*arguments, **streams):
    return subprocess.Popen(
        [sys.executable, "-m", "resnet_fit", "predict", *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(Path(resnet_fit.__file__).parents[1])},
        **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        | streams,
    )


def test_who_writes_a_name_gets_its_answer_and_ctrl_c_ends_it(folder_run, model):
    red = folder_run.parent / "photos/red"
    process = start(model, "-", "--top", 1)
    try:
        for name in ("1.png", "0.png"):
            process.stdin.write(os.fsencode(red / name) + b"\n")
            process.stdin.flush()
            assert process.stdout.readline().split()[0] == os.fsencode(red / name)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    finally:
        process.kill()
    assert (process.returncode, err) == (130, b"resnet-fit: interrupted\n")


def test_a_last_line_without_an_end_and_a_reader_that_leaves(folder_run, model):
    files = sorted(map(str, (folder_run.parent / "photos").rglob("*.png")))
    process = start(model, "-", "--batch-size", 5, "--format", "csv")
    out, err = process.communicate("\n\n".join(files).encode(), timeout=60)
    assert (process.returncode, err) == (0, b"")
    assert [row["file"] for row in rows_of(out.decode())] == files
    many = start(model, *files * 40, "--format", "text")
    many.stdout.readline()
    many.stdout.close()
    assert (many.wait(timeout=60), many.stderr.read()) == (141, b"")


def drain(terminal):
    """All that is written to a terminal, which is read at once: it holds little."""
    shown = b""
    with suppress(OSError):  # how a terminal ends
        while piece := os.read(terminal, 1 << 16):
            shown += piece
    return shown


def test_the_live_line_is_on_standard_error_and_the_output_is_clean(folder_run, model):
    files = sorted(map(str, (folder_run.parent / "photos").rglob("*.png"))) * 20
    ours, theirs = pty.openpty()
    process = start(model, *files, "none.png", "--format", "json", stderr=theirs)
    os.close(theirs)
    with ThreadPoolExecutor(1) as pool:
        drained = pool.submit(drain, ours)
        out, shown = process.stdout.read(), drained.result()
    os.close(ours)
    assert process.wait(timeout=60) == 1
    assert len(json.loads(out)) == len(files)
    assert b"predict" in shown
    screen = Screen(80)
    screen.feed(shown.decode().replace("\r\n", "\n"))
    left = [line for line in screen.lines if line.strip()]
    assert left == [
        "resnet-fit: none.png: no such file or directory",
        f"resnet-fit: files without a prediction: 1 of {len(files) + 1}",
    ]
