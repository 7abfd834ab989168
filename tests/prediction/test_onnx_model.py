"""An ONNX file answers as its metadata say, without Paddle."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import resnet_fit
from resnet_fit.cli import main
from resnet_fit.errors import RunFailed, UserError
from resnet_fit.prediction import OnnxModel

CLASSES = ("cat", "dog", "fox")
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
GEOMETRY = [
    {"resize": {"size": 10, "interpolation": "bilinear"}},
    {"center_crop": {"size": 8}},
]
NORMALIZE = {"normalize": {"mean": list(MEAN), "std": list(STD)}}
SHAPE = (3, 8, 8)


def weights(shape=SHAPE):
    rng = np.random.default_rng(0)
    return rng.normal(0, 0.1, (int(np.prod(shape)), len(CLASSES))).astype(np.float32)


def graph_of(given, shape=SHAPE, batch="batch", outputs=3):
    """Flatten, one matrix, softmax; of uint8 the graph itself makes normalised numbers."""
    channels, height, width = shape
    sizes = [batch, height, width, channels] if given == "uint8" else [batch, *shape]
    constants = {"matrix": weights(shape)[:, :outputs]}
    nodes, top = [], "image"
    if given == "uint8":
        mean, std = (np.float32(v[:channels]) * np.float32(255) for v in (MEAN, STD))
        constants |= {"mean": mean, "std": std}
        nodes = [
            helper.make_node("Cast", ["image"], ["cast"], to=TensorProto.FLOAT),
            helper.make_node("Sub", ["cast", "mean"], ["centred"]),
            helper.make_node("Div", ["centred", "std"], ["scaled"]),
            helper.make_node("Transpose", ["scaled"], ["planes"], perm=[0, 3, 1, 2]),
        ]
        top = "planes"
    nodes += [
        helper.make_node("Flatten", [top], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    kind = TensorProto.UINT8 if given == "uint8" else TensorProto.FLOAT
    return helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", kind, sizes)],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [batch, outputs])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )


def write(file, given="uint8", batch="batch", outputs=3, **changes):
    metadata = {
        "format": 1,
        "classes": list(CLASSES),
        "input": given,
        "image_shape": list(SHAPE),
        "stored_shape": None,
        "preprocessing": GEOMETRY if given == "uint8" else [*GEOMETRY, NORMALIZE],
        "output": "probabilities",
        "run": "runs/x",
        "checkpoint": "best",
        "resnet_fit": "0.1.0",
        "paddle": "3.3.1",
    } | changes
    graph = graph_of(given, tuple(metadata["image_shape"]), batch, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"resnet_fit": json.dumps(metadata)})
    onnx.save(model, file)
    return file


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
    with pytest.raises(RunFailed, match=r"gave \[1, 2\], expected \[1, 3\]"):
        model.probabilities([photo])
    with pytest.raises(RunFailed, match="onnxruntime failed"):
        model.compute(np.zeros((1, 7, 8, 3), np.uint8))


def test_without_onnxruntime(tmp_path, photo, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(["predict", str(write(tmp_path / "m.onnx")), str(photo)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("pip install 'resnet-fit[onnx]'")
