"""An ONNX file answers as its metadata say, without Paddle."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from paddle import nn
from PIL import Image
from small_onnx import CLASSES, GEOMETRY, MEAN, NORMALIZE, STD, weights, write

import resnet_fit
from resnet_fit import fit, open_run, parse_config
from resnet_fit.cli import main
from resnet_fit.errors import RunFailed, UserError
from resnet_fit.prediction import OnnxModel


@pytest.fixture
def photo(tmp_path):
    rng = np.random.default_rng(1)
    small = Image.fromarray(rng.integers(0, 256, (5, 4, 3), np.uint8))
    small.resize((24, 30), Image.Resampling.BICUBIC).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def by_hand(photo):
    """The same by Pillow and numpy alone."""
    image = Image.open(photo)
    image = image.resize((10, 10 * image.height // image.width), Image.Resampling.BILINEAR)
    upper = round((image.height - 8) / 2)
    pixels = np.asarray(image.crop((1, upper, 9, upper + 8)), np.float64) / 255
    logits = ((pixels - MEAN) / STD).transpose(2, 0, 1).reshape(-1) @ weights()
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


@pytest.mark.parametrize("given", ["uint8", "float32"])
def test_prepared_and_computed_as_by_hand(tmp_path, photo, given):
    model = OnnxModel(write(tmp_path / "m.onnx", given))
    assert model.classes == CLASSES
    expected = by_hand(photo)
    assert model.probabilities([photo])[0] == pytest.approx(expected, abs=1e-5)
    assert model.classify([photo, str(photo)]) == [CLASSES[expected.argmax()]] * 2
    assert model.probabilities([]).shape == (0, 3)


def test_the_same_answers_as_the_run(tmp_path):
    """On files of many sizes; the file says what the run's own record says."""
    rng = np.random.default_rng(4)
    for name in CLASSES:
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(4):
            pixels = rng.integers(0, 256, (9 + i, 12, 3), np.uint8)
            Image.fromarray(pixels).resize((40, 30 + 9 * i)).save(
                tmp_path / "photos" / name / f"{i}.jpg"
            )
    config = parse_config(
        {
            "model": {"name": "given"},
            "data": {
                "name": "folder",
                "path": str(tmp_path / "photos"),
                "batch_size": 3,
                "workers": 0,
                "validation": 0.25,
            },
            "augmentation": {
                "train": [{"random_resized_crop": {"size": 8}}, NORMALIZE],
                "eval": [*GEOMETRY, NORMALIZE],
            },
            "optimizer": {"name": "sgd", "learning_rate": 0.001},
            "training": {"epochs": 1},
            "callbacks": {"visualdl": None},
        }
    )
    networks = [nn.Sequential(nn.Flatten(), nn.Linear(192, 3)) for _ in range(2)]
    fit(config, tmp_path, "run", network=networks[0])
    run = open_run(tmp_path / "run", network=networks[1])
    run.network[1].weight.set_value(weights())
    run.network[1].bias.set_value(np.zeros(3, np.float32))
    files = sorted((tmp_path / "photos").rglob("*.jpg"))
    expected = run.probabilities(files)
    listed = list(run.record.preprocessing)
    for given, preprocessing in (("uint8", listed[:-1]), ("float32", listed)):
        file = write(tmp_path / f"{given}.onnx", given, preprocessing=preprocessing)
        found = OnnxModel(file).probabilities(files)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert np.ptp(expected[:, 0]) > 0.01


def test_a_fixed_number_of_images(tmp_path, photo):
    free, fixed = (OnnxModel(write(tmp_path / f"{b}.onnx", batch=b)) for b in ("batch", 4))
    rng = np.random.default_rng(2)
    images = rng.integers(0, 256, (9, 8, 8, 3), np.uint8)
    assert fixed.compute(images) == pytest.approx(free.compute(images), abs=1e-6)


def test_grey_images_of_one_size(tmp_path):
    shape = [1, 8, 8]
    file = write(tmp_path / "m.onnx", image_shape=shape, stored_shape=shape, preprocessing=[])
    levels = np.random.default_rng(3).integers(0, 256, (8, 8), np.uint8)
    Image.fromarray(levels).save(tmp_path / "grey.png")
    scaled = (levels / 255 - MEAN[0]) / STD[0]
    powers = np.exp(scaled.reshape(-1) @ weights(tuple(shape)))
    model = OnnxModel(file)
    assert model.probabilities([tmp_path / "grey.png"])[0] == pytest.approx(
        powers / powers.sum(), abs=1e-5
    )
    Image.new("L", (9, 8)).save(tmp_path / "wide.png")
    with pytest.raises(UserError, match=r"wide\.png: 9x8 pixels, .* trained on images of 8x8"):
        model.prepare(tmp_path / "wide.png")


def test_the_command_does_not_import_paddle(tmp_path, photo):
    code = (
        "import sys; from resnet_fit.cli import main; "
        "code = main(sys.argv[1:]); assert 'paddle' not in sys.modules; sys.exit(code)"
    )
    arguments = ["predict", write(tmp_path / "m.onnx"), photo, "none.jpg", "--format", "csv"]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(Path(resnet_fit.__file__).parents[1])},
        capture_output=True,
        text=True,
    )
    assert done.stderr.splitlines() == [
        "resnet-fit: none.jpg: no such file or directory",
        "resnet-fit: files without a prediction: 1 of 2",
    ]
    assert done.returncode == 1
    header, line = done.stdout.splitlines()
    values = dict(zip(header.split(","), line.split(","), strict=True))
    expected = by_hand(photo)
    order = np.argsort(-expected)
    assert values["file"] == str(photo)
    assert [values[f"class_{i}"] for i in (1, 2, 3)] == [CLASSES[i] for i in order]
    found = [float(values[f"probability_{i}"]) for i in (1, 2, 3)]
    assert found == pytest.approx(expected[order], abs=1e-5)


WRONG = [
    ({"format": 2}, "resnet_fit.format"),
    ({"classes": "cat"}, "resnet_fit.classes"),
    ({"output": "logits"}, "resnet_fit.output"),
    ({"preprocessing": [{"resise": {"size": 10}}]}, "preprocessing.0: unknown operation 'resise'"),
    ({"preprocessing": [{"resize": {"size": 0}}]}, "preprocessing.0.resize"),
    ({"stored_shape": [3, 8, 8]}, "preprocessing.1: unknown operation 'center_crop'"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_metadata_of_another_kind(tmp_path, photo, changes, message, capsys):
    file = write(tmp_path / "m.onnx", **changes)
    assert main(["predict", str(file), str(photo)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"resnet-fit: {file}: ")
    assert message in line


def test_files_of_other_programs(tmp_path, photo, capsys):
    model = onnx.load(write(tmp_path / "m.onnx"))
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "other.onnx")
    (tmp_path / "text.onnx").write_text("no network")
    whole = (tmp_path / "m.onnx").read_bytes()
    (tmp_path / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    for name, message in (
        ("other", "not written by resnet-fit export"),
        ("text", "not an ONNX file that onnxruntime can open"),
        ("cut", "not an ONNX file that onnxruntime can open"),
    ):
        assert main(["predict", str(tmp_path / f"{name}.onnx"), str(photo)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"{name}.onnx: {message}" in line


def test_a_graph_that_gives_other_classes_or_takes_other_images(tmp_path, photo):
    model = OnnxModel(write(tmp_path / "m.onnx", outputs=2))
    with pytest.raises(RunFailed, match=r"gave an output \[1, 2\], expected \[1, 3\]"):
        model.probabilities([photo])
    with pytest.raises(RunFailed, match="onnxruntime failed"):
        model.compute(np.zeros((1, 7, 8, 3), np.uint8))


def test_without_onnxruntime(tmp_path, photo, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(["predict", str(write(tmp_path / "m.onnx")), str(photo)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("pip install 'resnet-fit[onnx]'")
