"""Every mistake ends in one clear line, the right exit code, and nothing on the disk."""

from __future__ import annotations

import dataclasses
import io
import os
import pickle
import shutil
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from resnet_fit.cli import main
from resnet_fit.data.datasets import cifar as cifar_module

Change = Callable[[dict[str, Any]], object]
# As Change, with a folder to write files to.
Preparation = Callable[[dict[str, Any], Path], object]


def run(capsys, *arguments: object) -> tuple[int, list[str]]:
    """The exit code and what went to standard error, line by line."""
    try:
        code = main([str(a) for a in arguments])
    except SystemExit as stop:
        code = int(stop.code or 0)
    return code, capsys.readouterr().err.splitlines()


def assert_refused(code: int, lines: list[str], *words: str) -> None:
    assert code == 2, lines
    assert len(lines) == 1, lines
    assert lines[0].startswith("resnet-fit: ")
    assert "Traceback" not in lines[0]
    for word in words:
        assert word in lines[0]


def put(dotted: str, value: object) -> Change:
    def change(config: dict[str, Any]) -> None:
        *sections, key = dotted.split(".")
        for section in sections:
            config = config.setdefault(section, {})
        config[key] = value

    return change


def drop(section: str, key: str | None = None) -> Change:
    return lambda config: config.pop(section) if key is None else config[section].pop(key)


def dense(**keys: object) -> Change:
    """A DenseNet for small images, with these keys."""
    return put("model", {"name": "densenet", "depth": 100, "stem": "cifar", **keys})


IN_THE_CONFIG: dict[str, tuple[Change, tuple[str, ...]]] = {
    "unknown section": (put("modle", {}), ("modle", "Did you mean 'model'?")),
    "unknown key": (
        put("optimizer.lerning_rate", 1.0),
        ("optimizer.lerning_rate", "Did you mean 'learning_rate'?"),
    ),
    "key of another optimizer": (put("optimizer.beta1", 0.9), ("optimizer.beta1", "nesterov")),
    "unknown optimizer": (put("optimizer.name", "momentun"), ("Did you mean 'momentum'?",)),
    "no optimizer name": (drop("optimizer", "name"), ("optimizer.name", "required", "adamw")),
    "fused adamw": (
        put("optimizer", {"name": "adamw", "learning_rate": 1.0, "fused": True}),
        ("optimizer.fused: adamw has no", "adam, momentum have"),
    ),
    "fused muon": (
        put(
            "optimizer", {"name": "muon", "learning_rate": 1, "head_and_norm_lr": 1, "fused": True}
        ),
        ("optimizer.fused",),
    ),
    "no optimizer": (drop("optimizer"), ("optimizer", "required")),
    "no learning rate": (drop("optimizer", "learning_rate"), ("optimizer.learning_rate",)),
    "negative learning rate": (put("optimizer.learning_rate", -0.1), ("more than 0", "-0.1")),
    "learning rate as text": (put("optimizer.learning_rate", "fast"), ("number", "'fast'")),
    "infinite weight decay": (put("optimizer.weight_decay", float("inf")), ("weight_decay",)),
    "momentum of one": (put("optimizer.momentum", 1.0), ("optimizer.momentum", "less than 1")),
    "negative epochs": (put("training.epochs", -3), ("training.epochs", "more than 0", "-3")),
    "half an epoch": (put("training.epochs", 0.5), ("training.epochs", "whole number", "0.5")),
    "epochs as truth value": (put("training.epochs", True), ("training.epochs", "whole number")),
    "section as a list": (put("training", [1]), ("training", "section")),
    "section left empty": (put("training", None), ("training", "section")),
    "unknown device": (put("training.device", "tpu"), ("training.device", "gpu:N", "tpu")),
    "smoothing of one": (put("loss.label_smoothing", 1), ("loss.label_smoothing",)),
    "unknown precision": (put("training.precision", "O2"), ("training.precision", "float32")),
    "depth that does not exist": (put("model.depth", 19), ("model.depth", "18")),
    "depth without stages": (put("model.depth", []), ("model.depth", "a list of sizes")),
    "depth as text": (put("model.depth", "18"), ("model.depth", "'18'")),
    "unknown stem": (put("model.stem", "cifer"), ("model.stem", "Did you mean 'cifar'?")),
    "unknown shortcut": (put("model.shortcut", "identity"), ("model.shortcut", "zero-pad")),
    "stride on a basic block": (put("model.stride_on", "1x1"), ("stride_on", "bottleneck")),
    "unknown model": (put("model.name", "densnet"), ("model.name", "Did you mean 'densenet'?")),
    "model's name as a list": (
        put("model.name", ["resnet"]),
        ("model.name", "densenet, given, resnet"),
    ),
    "model as a list": (put("model", [18]), ("model", "section")),
    "key of another model": (
        dense(width=8),
        ("model.width: densenet has no key 'width', resnet has. Valid: name, weights, freeze, ",),
    ),
    "key of a dense model": (put("model.growth", 12), ("model.growth", "zero_init_residual")),
    "misspelt key of a dense model": (dense(grwoth=12), ("Did you mean 'growth'?",)),
    "dense depth that does not exist": (dense(depth=99), ("model.depth", "6n+4", "nearest 100")),
    "dense depth with another stem": (
        dense(stem="imagenet"),
        ("model.depth", "121", "nearest 121"),
    ),
    "dense depth without blocks": (dense(depth=[]), ("model.depth", "a list of sizes")),
    "dense depth left out": (put("model", {"name": "densenet"}), ("model.depth", "required")),
    "stem of another model": (dense(stem="cifar3"), ("model.stem", "Did you mean 'cifar'?")),
    "growth of nothing": (dense(growth=0), ("model.growth", "more than 0")),
    "unknown schedule": (put("schedule.name", "cosin"), ("Did you mean 'cosine'?",)),
    "warm-up as long as training": (
        put("schedule", {"name": "cosine", "warmup_epochs": 2}),
        ("schedule.warmup_epochs", "less than training.epochs (2)"),
    ),
    "milestones out of order": (
        put("schedule", {"name": "multi_step", "at_epochs": [5, 3]}),
        ("schedule.at_epochs", "rising"),
    ),
    "no milestones": (put("schedule", {"name": "multi_step"}), ("schedule.at_epochs",)),
    "unknown data": (put("data.name", "cifar"), ("data.name", "Did you mean 'cifar10'?")),
    "batch of nothing": (put("data.batch_size", 0), ("data.batch_size", "more than 0")),
    "all held out": (put("data.validation", 1.0), ("data.validation", "less than 1")),
    "folder without a path": (put("data.name", "folder"), ("data.path", "required")),
    "unknown operation": (
        put("augmentation.train", ["random_corp", "normalize"]),
        ("augmentation.train.0", "Did you mean 'random_crop'?"),
    ),
    "unknown option": (
        put("augmentation.train", [{"random_crop": {"pading": 1}}, "normalize"]),
        ("augmentation.train.0.random_crop.pading", "Did you mean 'padding'?"),
    ),
    "option out of range": (
        put("augmentation.train", [{"horizontal_flip": {"p": 2.0}}, "normalize"]),
        ("augmentation.train.0.horizontal_flip", "2.0"),
    ),
    "operation with two names": (
        put("augmentation.train", [{"horizontal_flip": {}, "vertical_flip": {}}]),
        ("augmentation.train.0", "expected"),
    ),
    "nothing makes numbers of the pixels": (
        put("augmentation.train", ["horizontal_flip"]),
        ("augmentation.train", "normalize"),
    ),
    "unknown monitor": (put("checkpoint.monitor", "accuracy"), ("checkpoint.monitor", "top1")),
    "flips that alternate and do not": (
        put("augmentation.train", [{"horizontal_flip": {"p": 0.3, "alternate": True}}]),
        ("augmentation.train.0.horizontal_flip", "0.5 where flips alternate", "0.3"),
    ),
    "threshold without its loss": (
        put("loss.target_threshold", 0.2),
        ("loss.target_threshold: cross_entropy has no", "binary_cross_entropy has"),
    ),
    "class weight of zero": (
        put("loss.class_weights", [1, 0]),
        ("loss.class_weights", "balanced", "[1, 0]"),
    ),
    "frozen at a random start": (
        put("model.freeze", ["backbone"]),
        ("model.freeze", "model.weights"),
    ),
    "blocks left out of a plain net": (
        put("model", {"depth": 18, "shortcut": "none", "stochastic_depth": 0.1}),
        ("model.stochastic_depth", "shortcuts"),
    ),
    "every block left out": (put("model.stochastic_depth", 1.0), ("less than 1",)),
    "mix of another kind": (
        put("augmentation.mix", {"mixap": 1.0}),
        ("augmentation.mix.mixap", "Did you mean 'mixup'?"),
    ),
    "negative mixup": (put("augmentation.mix", {"mixup": -1}), ("augmentation.mix.mixup", "-1")),
    "policy too strong": (
        put("augmentation.train", [{"rand_augment": {"magnitude": 40}}, "normalize"]),
        ("augmentation.train.0.rand_augment", "0 to 30", "40"),
    ),
    "policy after normalize": (
        put("augmentation.train", ["normalize", "trivial_augment"]),
        ("augmentation.train", "trivial_augment comes after normalize"),
    ),
    "rate factor of zero": (
        put("optimizer.lr_factors", {"fc": 0}),
        ("optimizer.lr_factors.fc", "more than 0"),
    ),
}


@pytest.mark.parametrize("mistake", IN_THE_CONFIG)
def test_in_the_config(mistake, tiny, write_yaml, tmp_path, capsys):
    change, words = IN_THE_CONFIG[mistake]
    change(tiny)
    file = write_yaml(tiny)
    code, lines = run(capsys, "--config", file, "--output", tmp_path / "runs")
    assert_refused(code, lines, str(file), *words)
    assert not (tmp_path / "runs").exists()


NOT_A_CONFIG: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "empty": (b"", ("received nothing",)),
    "a list": (b"- model\n", ("received a list",)),
    "one word": (b"resnet18\n", ("received one value",)),
    "not YAML": (b"model: {depth: 18\n", ("not valid YAML",)),
    "a tab": (b"model:\n\tdepth: 18\n", ("experiment.yaml:2", "not valid YAML")),
    "not text": (b"\xff\xfe\x00\x01", ("UTF-8",)),
    "key given twice": (b"model: {depth: 18}\nmodel: {depth: 34}\n", (":2", "given twice")),
    "number as key": (b"18: model\n", ("expected a name as key",)),
    "python object": (b"model: !!python/object/apply:os.system ['true']\n", ("tag",)),
    "value inside itself": (b"model: &a [*a]\n", ("nested too deeply",)),
    "base that is not there": (b"base: nowhere.yaml\n", ("base", "nowhere.yaml")),
    "base that is no name": (b"base: [a]\n", ("base", "expected the name")),
}


@pytest.mark.parametrize("mistake", NOT_A_CONFIG)
def test_not_a_config(mistake, write_yaml, tmp_path, capsys):
    content, words = NOT_A_CONFIG[mistake]
    file = tmp_path / "experiment.yaml"
    file.write_bytes(content)
    code, lines = run(capsys, "--config", file, "--output", tmp_path / "runs")
    assert_refused(code, lines, str(file), *words)
    assert not (tmp_path / "runs").exists()


ON_THE_COMMAND_LINE: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "no config": ([], ("--config", "--help")),
    "unknown option": (["--config", "FILE", "--epoch", "3"], ("--epoch",)),
    "unknown command": (["viev"], ("viev", "Did you mean 'view'?")),
    "config that is not there": (["--config", "configs/resnet18_cifr.yaml"], ("no such config",)),
    "config that is a folder": (["--config", "OUTPUT"], ("no such config",)),
    "override without a value": (["--config", "FILE", "--set", "training.epochs"], ("KEY=VALUE",)),
    "override of an unknown key": (
        ["--config", "FILE", "--set", "training.epoch=3"],
        ("--set training.epoch", "Did you mean 'epochs'?"),
    ),
    "override of the wrong type": (
        ["--config", "FILE", "--set", "training.epochs=ten"],
        ("--set training.epochs", "'ten'"),
    ),
    "override below a number": (["--config", "FILE", "--set", "training.epochs.x=1"], ("no keys",)),
    "override past a list": (
        ["--config", "FILE", "--set", "augmentation.train.9=normalize"],
        ("augmentation.train", "0 to 1"),
    ),
    "override of nothing": (["--config", "FILE", "--set", "data.limit="], ("no value", "null")),
    "override that is not YAML": (["--config", "FILE", "--set", "a={"], ("not valid YAML",)),
    "unknown device": (["--config", "FILE", "--device", "tpu"], ("training.device", "tpu")),
    "GPU on a CPU build": (["--config", "FILE", "--device", "gpu:7"], ("training.device", "gpu:7")),
    "name that leaves the folder": (["--config", "FILE", "--name", "../x"], ("--name", "../x")),
    "run that exists": (["--config", "FILE", "--name", "taken"], ("taken", "exists already")),
    "resume of nothing": (["--resume", "nowhere"], ("nowhere", "not a run's folder")),
    "resume of all runs": (["--resume", "OUTPUT"], ("runs", "no config.yaml")),
    "resume of a run without checkpoint": (
        ["--resume", "RUN"],
        ("last: no checkpoint is there", "started anew"),
    ),
    "resume under another name": (["--resume", "RUN", "--name", "b"], ("--name", "--resume")),
    "resume and a config": (["--resume", "RUN", "--config", "FILE"], ("not allowed with",)),
    "port that is none": (["view", "OUTPUT", "--port", "http"], ("--port", "'http'")),
    "view of nothing": (["view", "nowhere"], ("nowhere", "no such folder")),
    "view of a folder without runs": (["view", "OUTPUT"], ("no VisualDL records",)),
}


@pytest.mark.parametrize("mistake", ON_THE_COMMAND_LINE)
def test_on_the_command_line(mistake, tiny, write_yaml, tmp_path, capsys):
    arguments, words = ON_THE_COMMAND_LINE[mistake]
    output = tmp_path / "runs"
    (output / "taken").mkdir(parents=True)
    file = write_yaml(tiny)
    places = {"FILE": str(file), "OUTPUT": str(output), "RUN": str(tmp_path / "run")}
    (tmp_path / "run").mkdir()
    shutil.copy(file, tmp_path / "run" / "config.yaml")
    arguments = [places.get(a, a) for a in arguments]
    if "--config" in arguments:
        arguments += ["--output", str(output)]
    code, lines = run(capsys, *arguments)
    assert_refused(code, lines, *words)
    assert list(output.iterdir()) == [output / "taken"]
    assert not list((output / "taken").iterdir())


# --- data and files -------------------------------------------------------------------

CIFAR_COUNTS = (50, 10)
LABELS = [f"class{i}".encode() for i in range(10)]


def cifar_files(labels: int = 10) -> dict[str, dict[bytes, Any]]:
    """CIFAR-10 with ten images to a file, its labels going round ``labels`` classes."""
    images = {b"data": np.zeros((10, 3072), np.uint8), b"labels": [i % labels for i in range(10)]}
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    return dict.fromkeys(names, images) | {"batches.meta": {b"label_names": LABELS}}


def archive(files: Mapping[str, object]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            raw = pickle.dumps(content, protocol=2)
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(raw)
            tar.addfile(member, io.BytesIO(raw))
    return buffer.getvalue()


def without(files: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: content for name, content in files.items() if name not in names}


def cifar(content: bytes | None, path: str | None = "data") -> Preparation:
    """CIFAR-10 from an archive of this content, or without any."""

    def prepare(config: dict[str, Any], folder: Path) -> None:
        (folder / "data").mkdir()
        if content is not None:
            (folder / "data" / "cifar-10-python.tar.gz").write_bytes(content)
        config["data"] = {"name": "cifar10", "batch_size": 8}
        if path is not None:
            config["data"]["path"] = str(folder / path)

    return prepare


def image(folder: Path, name: str, size: int = 16) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(size).integers(0, 256, (size, size, 3), np.uint8)
    Image.fromarray(pixels).save(file)
    return file


TWO_CLASSES = ("train/cat", "train/dog", "val/cat", "val/dog")


def photos(*folders: str, then: Preparation | None = None, size: int = 16) -> Preparation:
    """An image folder: eight images in each of ``folders``, and after that whatever spoils it."""

    def prepare(config: dict[str, Any], folder: Path) -> None:
        root = folder / "photos"
        root.mkdir()
        for name in folders:
            for i in range(8):
                image(root / name, f"{i}.png", size)
        config["data"] = {"name": "folder", "path": str(root), "batch_size": 4, "workers": 2}
        normalize = {"normalize": {"mean": [0.5] * 3, "std": [0.25] * 3}}
        config["augmentation"] = {
            "train": [{"random_resized_crop": {"size": 8}}, normalize],
            "eval": [{"resize": {"size": 8}}, {"center_crop": {"size": 8}}, normalize],
        }
        if then is not None:
            then(config, root)

    return prepare


def cut(name: str) -> Preparation:
    """Leave half of an image file, as a broken copy does."""

    def spoil(_: dict[str, Any], root: Path) -> None:
        file = root / name
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])

    return spoil


def widen(name: str, augmentation: list[Any]) -> Preparation:
    """An image twice as wide as the others, and augmentation that leaves it so."""

    def spoil(config: dict[str, Any], root: Path) -> None:
        config["augmentation"]["train"] = augmentation
        with Image.open(root / name) as original:
            wide = original.resize((32, 16))
        wide.save(root / name)

    return spoil


def also(change: Change) -> Preparation:
    return lambda config, _: change(config)


def weights(content: Callable[[Path], object] | None) -> Preparation:
    """Start from a file of weights that ``content`` writes, or from none."""

    def prepare(config: dict[str, Any], folder: Path) -> None:
        file = folder / "weights.pdparams"
        if content is not None:
            content(file)
        config["model"]["weights"] = str(file)

    return prepare


def save_other_net(file: Path) -> None:
    import paddle

    from resnet_fit import resnet

    paddle.save(resnet([1, 1, 1], 10, stem="cifar", width=8, in_channels=1).state_dict(), str(file))


def save_and_cut(file: Path) -> None:
    save_other_net(file)
    file.write_bytes(file.read_bytes()[:5000])


IN_THE_DATA: dict[str, tuple[Preparation, tuple[str, ...]]] = {
    "archive cut short": (
        cifar(archive(cifar_files())[:-300]),
        ("cifar-10-python.tar.gz", "damaged", "in its place"),
    ),
    "archive that is none": (
        cifar(b"<html>404 Not Found</html>"),
        ("cifar-10-python.tar.gz", "damaged", "gzip"),
    ),
    "archive of nothing": (cifar(b""), ("cifar-10-python.tar.gz", "damaged")),
    "archive without a batch": (
        cifar(archive(without(cifar_files(), "data_batch_3"))),
        ("cifar-10-python.tar.gz", "without data_batch_3"),
    ),
    "archive without names": (
        cifar(archive(without(cifar_files(), "batches.meta"))),
        ("without batches.meta",),
    ),
    "archive with fewer images": (
        cifar(archive(cifar_files() | {"test_batch": {b"data": np.zeros((3, 3072), np.uint8)}})),
        ("cifar-10-python.tar.gz", "labels"),
    ),
    "label that no class has": (
        cifar(
            archive(
                cifar_files()
                | {"test_batch": {b"data": np.zeros((10, 3072), np.uint8), b"labels": [10] * 10}}
            )
        ),
        ("labels: received (10, 10)", "expected 0 to 9"),
    ),
    "archive with code in it": (
        cifar(archive(cifar_files() | {"test_batch": os.getcwd})),
        ("getcwd", "only plain data are read"),
    ),
    "no archive and no network": (
        cifar(None, path=None),
        (
            "cifar10 is not on this machine",
            "put cifar-10-python.tar.gz at",
            "home/.cache/paddle/dataset/cifar/cifar-10-python.tar.gz",
            "resnet-fit --config resnet18_digits",
        ),
    ),
    "no archive in the folder": (cifar(None), ("holds neither cifar-10-python.tar.gz nor",)),
    "no such folder": (
        cifar(None, path="dta"),
        ("data.path: ", "dta: no such", "Did you mean 'data'?"),
    ),
    "a number as path": (also(put("data", {"name": "cifar10", "path": 5})), ("data.path", "5")),
    "digits from a path": (
        also(put("data.path", "x")),
        ("data.path: digits has no key 'path', cifar10, cifar100, folder have",),
    ),
    "network larger than any memory": (
        also(put("model.width", 3_000_000)),
        ("model: ", "does not fit into memory"),
    ),
    "cache for data in memory": (
        also(put("data.cache", {"shorter_side": 32})),
        ("data.cache: digits has no key 'cache', folder has",),
    ),
    "cache of no size": (
        photos(*TWO_CLASSES, then=also(put("data.cache", {}))),
        ("data.cache.shorter_side", "required"),
    ),
    "cache of too small images": (
        photos(
            *TWO_CLASSES,
            then=also(
                lambda config: config.update(
                    data=config["data"] | {"cache": {"shorter_side": 8}},
                    augmentation=config["augmentation"]
                    | {"eval": [{"resize": {"size": 12}}, "normalize"]},
                )
            ),
        ),
        ("augmentation.eval: asks for 12 pixels, data.cache.shorter_side keeps 8",),
    ),
    "cache where none can be": (
        photos(
            *TWO_CLASSES,
            then=also(put("data.cache", {"shorter_side": 8, "path": "/dev/null/cache"})),
        ),
        ("/dev/null/cache", "cannot be made", "data.cache.path"),
    ),
    "image to cache that is none": (
        photos(
            *TWO_CLASSES,
            then=lambda config, root: (
                put("data.cache", {"shorter_side": 8, "path": str(root / ".cache")})(config),
                (root / "val/cat/x.jpg").write_text("hello"),
            ),
        ),
        ("val/cat/x.jpg", "not an image"),
    ),
    "workers for data in memory": (
        also(put("data.workers", 2)),
        ("data.workers: digits has no key 'workers', folder has",),
    ),
    "batch larger than the data": (
        also(put("data", {"name": "digits", "batch_size": 2000, "drop_last": True})),
        ("no batch", "1437 images", "batch size 2000"),
    ),
    "saturation of grey images": (
        also(put("augmentation.train", [{"color_jitter": {"saturation": 0.2}}, "normalize"])),
        ("color_jitter.saturation", "1 channel", "needs 3"),
    ),
    "crop larger than the image": (
        also(put("augmentation.train", [{"random_crop": {"size": 64}}, "normalize"])),
        ("random_crop.size", "64", "8x8"),
    ),
    "crop of a test image that is larger": (
        also(put("augmentation.eval", [{"random_crop": {"size": 64}}, "normalize"])),
        ("random_crop.size", "64", "8x8"),
    ),
    "reflection wider than the image": (
        also(
            put(
                "augmentation.train",
                [{"random_crop": {"padding": 9, "mode": "reflect"}}, "normalize"],
            )
        ),
        ("random_crop.padding", "9", "8x8"),
    ),
    "three means for grey images": (
        also(put("augmentation.train", [{"normalize": {"mean": [0.5] * 3, "std": [0.2] * 3}}])),
        ("normalize.mean", "3 values", "1 channel"),
    ),
    "folder that is not there": (
        photos(then=also(put("data.path", "/nowhere/photos"))),
        ("/nowhere/photos", "no such file or folder"),
    ),
    "folder of nothing": (photos(), ("photos", "no class folders")),
    "folder that is a file": (
        photos(then=lambda config, root: put("data.path", str(image(root, "a.png")))(config)),
        ("a.png", "not a folder"),
    ),
    "folder without train": (photos("val/cat", "val/dog"), ("photos", "val/ but no train/")),
    "folder without val": (
        photos("train/cat", "train/dog"),
        ("photos", "no folder to validate on", "data.validation"),
    ),
    "val and a share held out": (
        photos(*TWO_CLASSES, then=also(put("data.validation", 0.5))),
        ("val/", "0.5"),
    ),
    "images without class folders": (
        photos(then=lambda _, root: image(root, "a.png")),
        ("photos", "1 images but no class folders"),
    ),
    "one class": (photos("train/cat", "val/cat"), ("only one class, 'cat'",)),
    "class without images": (
        photos(*TWO_CLASSES, then=lambda _, root: (root / "train" / "emu").mkdir()),
        ("no images", "'emu'"),
    ),
    "class missing in val": (
        photos("train/cat", "train/dog", "train/emu", "val/cat", "val/dog"),
        ("val", "'emu'", "missing"),
    ),
    "class only in val": (
        photos(*TWO_CLASSES, "val/dogs"),
        ("'dogs' is not in", "Did you mean 'dog'?"),
    ),
    "images smaller than the crop": (
        photos(
            *TWO_CLASSES,
            then=also(put("augmentation.eval", [{"center_crop": {"size": 32}}, "normalize"])),
        ),
        ("center_crop", "32 px", "16x16", "resize"),
    ),
    "images of several sizes": (
        photos(
            *TWO_CLASSES,
            then=widen("train/dog/5.png", [{"resize": {"size": 8}}, "normalize"]),
        ),
        ("after its transforms", "16x8", "add random_resized_crop"),
    ),
    "first image cut short": (photos(*TWO_CLASSES, then=cut("train/cat/0.png")), ("cat/0.png",)),
    "training image cut short": (photos(*TWO_CLASSES, then=cut("train/dog/5.png")), ("dog/5.png",)),
    "image that is none": (
        photos(*TWO_CLASSES, then=lambda _, root: (root / "train/cat/x.jpg").write_text("hello")),
        ("train/cat/x.jpg", "not an image"),
    ),
    "image of no bytes": (
        photos(*TWO_CLASSES, then=lambda _, root: (root / "train/cat/x.jpg").touch()),
        ("train/cat/x.jpg", "empty file"),
    ),
    "images smaller than the transitions": (
        photos(*TWO_CLASSES, then=also(dense(depth=[1, 1, 1, 1, 1]))),
        ("images of 8 px are too small", "5 dense blocks", "16 px or more"),
    ),
    "monitor beyond the classes": (
        photos(*TWO_CLASSES, then=also(put("checkpoint.monitor", "top5"))),
        ("checkpoint.monitor", "top5", "top1"),
    ),
    "weights that are not there": (weights(None), ("weights.pdparams", "no such file or folder")),
    "weights of another net": (
        weights(save_other_net),
        ("weights.pdparams", "does not fit", "layer3"),
    ),
    "weights cut short": (weights(save_and_cut), ("weights.pdparams", "damaged or cut short")),
    "weights that are none": (
        weights(lambda file: file.write_text("hello")),
        ("weights.pdparams", "no weights file"),
    ),
    "weights that are a folder": (weights(lambda file: file.mkdir()), ("is a folder",)),
}


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """No data of this machine, no network, and a CIFAR of sixty images."""
    monkeypatch.delenv(cifar_module.ENVIRONMENT, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    small = dataclasses.replace(
        cifar_module.CIFAR10, urls=("http://127.0.0.1:9/no",), counts=CIFAR_COUNTS
    )
    monkeypatch.setattr(cifar_module, "CIFAR10", small)


def children() -> set[int]:
    """Processes that this one has started and that still run."""
    tasks = Path("/proc/self/task").glob("*/children")
    return {int(child) for task in tasks for child in task.read_text().split()}


@pytest.mark.parametrize("mistake", IN_THE_DATA)
def test_in_the_data(mistake, tiny, write_yaml, tmp_path, capsys, alone):
    prepare, words = IN_THE_DATA[mistake]
    prepare(tiny, tmp_path)
    before = children()
    code, lines = run(capsys, "--config", write_yaml(tiny), "--output", tmp_path / "runs")
    assert_refused(code, lines, *words)
    assert not list(tmp_path.glob("runs/*"))
    assert children() == before


def test_a_download_that_is_not_what_it_should_be(
    tiny, write_yaml, tmp_path, capsys, alone, monkeypatch, web_server
):
    (web_server.folder / "cifar.tar.gz").write_bytes(archive(cifar_files()))
    url = f"{web_server.url}/cifar.tar.gz"
    damaged = dataclasses.replace(cifar_module.CIFAR10, urls=(url,), md5="0" * 32)
    monkeypatch.setattr(cifar_module, "CIFAR10", damaged)
    tiny["data"] = {"name": "cifar10"}
    code, lines = run(capsys, "--config", write_yaml(tiny), "--output", tmp_path / "runs")
    assert_refused(code, lines, url, "md5", f"expected {'0' * 32}", "put cifar-10-python.tar.gz at")
    assert not list(cifar_module.cache_folder().iterdir())
    assert not (tmp_path / "runs").exists()


# --- output ---------------------------------------------------------------------------


@pytest.mark.parametrize("output", ["file", "file/below"])
def test_output_that_is_no_folder(output, tiny, write_yaml, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    code, lines = run(capsys, "--config", write_yaml(tiny), "--output", tmp_path / output)
    assert_refused(code, lines, str(tmp_path / output), "Not a directory", "--output")
    assert (tmp_path / "file").read_text() == "mine"


def test_output_that_may_not_be_written(tiny, write_yaml, tmp_path, capsys, monkeypatch):
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    code, lines = run(capsys, "--config", write_yaml(tiny), "--output", tmp_path / "runs")
    assert_refused(code, lines, str(tmp_path / "runs"), "Permission denied")


def test_a_disk_that_is_full(tiny, write_yaml, tmp_path, capsys, monkeypatch):
    """Not the user's mistake: exit code 1, and what was written before is whole."""

    def full(source: str, target: str) -> None:
        if str(target).endswith("metrics.jsonl"):
            raise OSError(28, "No space left on device", str(source))
        os.rename(source, target)

    monkeypatch.setattr(os, "replace", full)
    arguments = ["--config", write_yaml(tiny), "--output", tmp_path, "--name", "run"]
    code, lines = run(capsys, *arguments)
    assert code == 1
    assert len(lines) == 1
    assert "metrics.jsonl" in lines[0]
    assert lines[0].endswith("No space left on device")
    assert not [path for path in (tmp_path / "run").rglob("*") if ".part" in path.name]


# --- after training has begun ---------------------------------------------------------


def test_what_a_checkpoint_holds_is_kept(tiny, write_yaml, tmp_path, capsys):
    """An image that cannot be read in the first evaluation, before which the epoch is saved."""
    photos(*TWO_CLASSES, then=cut("val/dog/5.png"))(tiny, tmp_path)
    arguments = ["--config", write_yaml(tiny), "--output", tmp_path / "runs", "--name", "run"]
    code, lines = run(capsys, *arguments)
    assert_refused(code, lines, "val/dog/5.png")
    assert (tmp_path / "runs" / "run" / "checkpoints" / "last" / "model.pdparams").exists()
    image(tmp_path / "photos", "val/dog/5.png")
    arguments = ["--resume", tmp_path / "runs" / "run"]
    code, lines = run(capsys, *arguments)
    assert_refused(code, lines, "evaluation images were changed", "--set data.compare=names")
    code, lines = run(capsys, *arguments, "--set", "data.compare=names")
    assert (code, lines) == (0, [])
    assert (tmp_path / "runs" / "run" / "summary.json").exists()
