"""`resnet-fit export`, from runs to files that other programs open."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import onnxruntime
import paddle
import pytest
from conftest import TINY
from PIL import Image

from resnet_fit import export_run, fit, open_run, parse_config
from resnet_fit.checkpoints.files import CHECKSUMS
from resnet_fit.cli import main
from resnet_fit.errors import RunFailed, UserError
from resnet_fit.export import exporting, onnx_file
from resnet_fit.export.graph import Graph, save
from resnet_fit.export.metadata import Metadata
from resnet_fit.export.request import Format
from resnet_fit.export.running import Running
from resnet_fit.files import digest_of
from resnet_fit.runs.held_out import held_out

SIDE = 12
COLOURS: dict[str, Any] = {
    "model": {"depth": [1, 1], "stem": "cifar", "width": 4},
    "data": {"name": "folder", "batch_size": 6, "workers": 0},
    "augmentation": {
        "train": [{"random_resized_crop": {"size": SIDE}}, "normalize"],
        "eval": [{"resize": {"size": 14}}, {"center_crop": {"size": SIDE}}, "normalize"],
    },
    "loss": {"name": "binary_cross_entropy"},
    "optimizer": {"name": "momentum", "learning_rate": 0.05},
    "training": {"epochs": 2},
    "callbacks": {"visualdl": None},
}


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    """A run on digits whose best epoch was chosen by averaged weights."""
    changes = {
        "training": {"epochs": 1},
        "callbacks": {"visualdl": None, "weight_average": {"decay": 0.9}},
        "checkpoint": {"monitor": "ema_top1"},
    }
    return fit(parse_config(TINY | changes), tmp_path_factory.mktemp("runs"), "digits").folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Three colours, in folders, as photographs of several sizes."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    rng = np.random.default_rng(0)
    for part, count in (("train", 6), ("val", 5)):
        for channel, name in enumerate(("red", "green", "blue")):
            (folder / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 160, (40 + 20 * i, 60, 3), np.uint8)
                pixels[..., channel] += 90
                Image.fromarray(pixels).save(folder / part / name / f"{i}.jpg", quality=95)
    return folder


@pytest.fixture(scope="module")
def colours(photos, tmp_path_factory) -> Path:
    config = COLOURS | {"data": COLOURS["data"] | {"path": str(photos)}}
    return fit(parse_config(config), tmp_path_factory.mktemp("runs"), "colours").folder


def session_of(file: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])


def largest_weight(file: Path) -> int:
    """The largest absolute value of the quantised weights in an ONNX file."""
    onnx = pytest.importorskip("onnx")
    tensors = onnx.load(file).graph.initializer
    weights = [t for t in tensors if t.data_type == onnx.TensorProto.INT8 and len(t.dims) > 1]
    return max(int(abs(onnx.numpy_helper.to_array(t).astype(int)).max()) for t in weights)


def names_in(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def rewrite(file: Path, change: Callable[[str], str]) -> None:
    """Change a file of a checkpoint, and its checksum."""
    file.write_text(change(file.read_text("utf-8")), "utf-8")
    sums = file.with_name(CHECKSUMS)
    digest = digest_of(file, "sha256")
    sums.write_text(json.dumps(json.loads(sums.read_text()) | {file.name: digest}))


def test_digits_as_onnx_and_in_eight_bits(digits, tmp_path, capsys):
    pytest.importorskip("ml_dtypes")
    output = tmp_path / "out" / "digits"
    assert main(["export", str(digits), "--int8", "--output", str(output)]) == 0
    out = capsys.readouterr().out
    assert "most probable class is the same for all 360 images" in out
    assert names_in(output) == ["model.int8.onnx", "model.meta.json", "model.onnx"]
    run = open_run(digits)
    images = held_out(run).images
    session = session_of(output / "model.onnx")
    (found,) = session.run(None, {"images": images.transpose(0, 2, 3, 1)})
    expected = paddle.nn.functional.softmax(run.logits(images)).numpy()
    assert np.allclose(found, expected, rtol=1e-4, atol=0)
    right = float(np.mean(found.argmax(1) == held_out(run).labels))
    assert re.search(rf"^onnxruntime +{100 * right:.2f}% ", out, re.M)
    whole = session_of(output / "model.int8.onnx")
    (quantized,) = whole.run(None, {"images": images.transpose(0, 2, 3, 1)})
    assert np.mean(quantized.argmax(1) == found.argmax(1)) > 0.95
    assert not np.array_equal(quantized, found)
    # With 127 the answers are wrong on processors without VNNI, and on those only.
    assert largest_weight(output / "model.int8.onnx") == 64
    text = (output / "model.meta.json").read_text("utf-8")
    for each in (session, whole):
        assert each.get_modelmeta().custom_metadata_map == {"resnet_fit": text}
    about = json.loads(text)
    assert about | {"resnet_fit": "", "paddle": ""} == {
        "format": 1,
        "classes": [str(i) for i in range(10)],
        "input": "uint8",
        "image_shape": [1, 8, 8],
        "stored_shape": [1, 8, 8],
        "preprocessing": [],
        "output": "probabilities",
        "run": "digits",
        "checkpoint": "best",
        "epoch": 1,
        "average": True,
        "resnet_fit": "",
        "paddle": "",
    }
    assert Metadata.from_json(text).to_json() == text


def test_digits_for_paddle_inference_normalised_by_the_program(digits, tmp_path):
    for name in ("model.pdiparams.info", "mine.txt"):
        (tmp_path / name).write_text("of an earlier export, and of the user")
    exported = export_run(
        digits, "paddle", "float32", average=False, checkpoint="last", output=tmp_path
    )
    assert exported.file.parent == tmp_path
    assert exported.agreements["paddle"].holds
    assert set(exported.seconds) == {"this library", "paddle"}
    run = open_run(digits, "last", average=False)
    ((_, options),) = exported.metadata.preprocessing[0].items()
    mean, std = options["mean"][0], options["std"][0]
    images = held_out(run).images[:7]
    files = (exported.file, tmp_path / "model.pdiparams")
    with closing(Running(files, threads=1)) as running:
        found, seconds = running.run(((images / 255 - mean) / std).astype("float32"))
    assert seconds > 0
    expected = paddle.nn.functional.softmax(run.logits(images)).numpy()
    assert np.allclose(found, expected, rtol=1e-4, atol=0)
    program = exported.file.name
    assert program in ("model.json", "model.pdmodel")
    new = {"mine.txt", "model.meta.json", "model.pdiparams", program}
    assert new <= set(names_in(tmp_path)) <= new | {"model.pdiparams.info"}
    with pytest.raises(UserError, match=rf"other metadata \({program}\)"):
        export_run(digits, output=tmp_path)


def test_other_weights_do_not_go_into_the_same_folder(digits, tmp_path):
    """Here of an ONNX export of the averaged weights, by what is beside it."""
    about = exporting.metadata_of(open_run(digits), "uint8", digits, "best")
    assert about.average
    (tmp_path / exporting.METADATA).write_text(about.to_json(), encoding="utf-8")
    (tmp_path / "model.onnx").touch()
    exporting._refuse_mixture(tmp_path, "paddle", about)  # those of the same weights may
    with pytest.raises(UserError, match=r"other metadata \(model\.onnx\)"):
        export_run(digits, "paddle", average=False, output=tmp_path)


def test_where_threads_cannot_be_told_all_cores_compute(digits, tmp_path, monkeypatch):
    """As without Intel's OpenMP; and the device is afterwards the one of before."""

    def unknown():
        raise UserError("the number of threads cannot be told or changed")

    devices: list[str] = []
    on_a_gpu = SimpleNamespace(
        get_device=lambda: "gpu:1", set_device=devices.append, __version__=paddle.__version__
    )
    monkeypatch.setattr(exporting, "threads", unknown)
    monkeypatch.setattr(exporting, "paddle", on_a_gpu)
    assert export_run(digits, "paddle", output=tmp_path).agreements["paddle"].holds
    assert devices == ["gpu:1"]


def test_photographs_end_to_end_and_the_example_that_serves_them(colours, photos, tmp_path, capsys):
    """The program without Paddle says of each file what `OpenedRun.logits` says of it."""
    from test_examples import run as run_example

    assert main(["export", str(colours)]) == 0
    out = capsys.readouterr().out
    assert "resize, center_crop" in out
    file = colours / "export" / "model.onnx"
    about = json.loads(session_of(file).get_modelmeta().custom_metadata_map["resnet_fit"])
    assert about["stored_shape"] is None
    assert [name for step in about["preprocessing"] for name in step] == ["resize", "center_crop"]
    paths = sorted((photos / "val").rglob("*.jpg"))
    done = run_example("serve_onnx.py", file, *paths, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = [line.rsplit(maxsplit=2)[1:] for line in done.stdout.splitlines()]
    run = open_run(colours)
    chances = paddle.nn.functional.sigmoid(run.logits(paths)).numpy()
    assert [name for name, _ in said] == run.classify(paths)
    shares = [float(share.removesuffix("%")) / 100 for _, share in said]
    assert np.allclose(shares, chances.max(axis=1), atol=6e-5)


def test_without_its_data_it_asks_for_other_images(colours, photos, tmp_path, capsys):
    gone = tmp_path / "run"
    shutil.copytree(colours, gone)
    rewrite(
        gone / "checkpoints/best/config.yaml",
        lambda text: text.replace(str(photos), str(tmp_path / "nowhere")),
    )
    shutil.rmtree(gone / "export", ignore_errors=True)
    assert main(["export", str(gone)]) == 2
    said = capsys.readouterr().err
    assert "nowhere" in said
    assert "--data FOLDER" in said
    assert len(said.splitlines()) == 1
    assert not (gone / "export").exists()
    exported = export_run(gone, "paddle", data=photos)
    assert exported.agreements["paddle"].images == 15
    with pytest.raises(UserError, match="--int8 needs training images"):
        export_run(gone, data=photos, int8=True)


def test_a_wrong_export_is_refused_and_leaves_nothing(digits, monkeypatch, tmp_path, capsys):
    right = exporting.graph_of

    def with_another_mean(run, takes) -> Graph:
        graph = right(run, takes)
        graph.shift.set_value(graph.shift + 0.1)
        return graph

    monkeypatch.setattr(exporting, "graph_of", with_another_mean)
    (tmp_path / "model.onnx").write_bytes(b"of an earlier export")
    assert main(["export", str(digits), "--output", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "not exported: the file gives other results than the network" in said
    assert len(said.splitlines()) == 1
    assert names_in(tmp_path) == ["model.onnx"]
    assert (tmp_path / "model.onnx").read_bytes() == b"of an earlier export"


def test_metadata_that_leave_out_a_step_are_refused(colours, monkeypatch, tmp_path):
    of = exporting.metadata_of

    def without_resize(*arguments):
        made = of(*arguments)
        return made.model_copy(update={"preprocessing": made.preprocessing[1:]})

    monkeypatch.setattr(exporting, "metadata_of", without_resize)
    with pytest.raises(RunFailed, match="not exported"):
        export_run(colours, "paddle", output=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_what_follows_normalize_cannot_be_put_in_order(digits, tmp_path):
    run = shutil.copytree(digits, tmp_path / "run")

    def with_a_flip(text: str) -> str:
        about = json.loads(text)
        about["preprocessing"].append({"horizontal_flip": {"p": 0.0}})
        return json.dumps(about)

    rewrite(run / "checkpoints/best/data.json", with_a_flip)
    with pytest.raises(UserError, match=r"horizontal_flip comes after normalize.*--input float32"):
        export_run(run)
    outside = exporting.metadata_of(open_run(run), "float32", run, "best").preprocessing
    assert [name for step in outside for name in step] == ["normalize", "horizontal_flip"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--format", "onx"], "Did you mean 'onnx'?"),
        (["--input", "int8"], "choose uint8 or float32"),
        (["--format", "paddle", "--int8"], "only ONNX files are quantised"),
        (["--checkpoint", "bset"], "Did you mean 'best'?"),
        (["--data", "nowhere"], "nowhere: no such file or folder"),
        (["--output", __file__], "test_exporting.py: not a folder"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments, words, digits, capsys):
    assert main(["export", str(digits), *arguments]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert len(said.splitlines()) == 1
    assert not (digits / "export").exists()


def test_missing_packages_are_named(digits, capsys, monkeypatch):
    from resnet_fit.export import request

    monkeypatch.setattr(request, "find_spec", lambda name: None if "onnxr" in name else name)
    assert main(["export", str(digits)]) == 2
    said = capsys.readouterr().err
    assert "onnxruntime not installed: pip install 'resnet-fit[onnx]'" in said


def test_children_that_fail_say_why(tmp_path):
    broken = tmp_path / "model.onnx"
    broken.write_bytes(b"broken")
    with (
        closing(Running((broken,), threads=1)) as running,
        pytest.raises(RunFailed, match=r"model\.onnx: cannot be run: .*INVALID_PROTOBUF"),
    ):
        running.run(np.zeros([1, 2, 2, 3], np.uint8))


class Unknown(paddle.nn.Layer):
    """With an operation that ONNX does not have."""

    def forward(self, images):
        return paddle.digamma(images.flatten(1))


def test_a_network_that_paddle2onnx_does_not_know(tmp_path):
    files = save(Graph(Unknown()), (1, 2, 2), tmp_path / "model")
    (tmp_path / "text").write_text("{}")
    with pytest.raises(RunFailed, match=r"paddle2onnx cannot convert .*--format paddle may do"):
        onnx_file.convert(*files, tmp_path / "text", "key", tmp_path / "model.onnx")


@pytest.mark.slow
def test_a_thousand_images_of_cifar(tmp_path):
    archive = os.environ.get("RESNET_FIT_DATA")
    if not archive:
        pytest.skip("RESNET_FIT_DATA is not set")
    config = {
        "model": {"depth": 20, "stem": "cifar3", "shortcut": "zero-pad", "width": 8},
        "data": {"name": "cifar10", "path": archive, "limit": 1000, "batch_size": 100},
        "optimizer": {"name": "momentum", "learning_rate": 0.05},
        "training": {"epochs": 2},
        "callbacks": {"visualdl": None},
    }
    folder = fit(parse_config(config), tmp_path, "cifar").folder
    for each in get_args(Format):
        exported = export_run(folder, each)
        agreement = exported.agreements[each]
        assert agreement.images == agreement.same == 1000
        assert agreement.difference < 1e-4
        assert agreement.right == agreement.right_exported
    assert names_in(folder / "export")[-1] == "model.pdiparams"
