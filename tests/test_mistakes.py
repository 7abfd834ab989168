"""Every mistake ends in one clear line, the right exit code, and nothing on the disk."""

from __future__ import annotations

import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from resnet_fit.cli import main
from resnet_fit.config.document import dump

Change = Callable[[dict[str, Any]], object]


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


IN_THE_CONFIG: dict[str, tuple[Change, tuple[str, ...]]] = {
    "unknown section": (put("modle", {}), ("modle", "Did you mean 'model'?")),
    "unknown key": (
        put("optimizer.lerning_rate", 1.0),
        ("optimizer.lerning_rate", "Did you mean 'learning_rate'?"),
    ),
    "key of another optimizer": (put("optimizer.beta1", 0.9), ("optimizer.beta1", "nesterov")),
    "unknown optimizer": (put("optimizer.name", "momentun"), ("Did you mean 'momentum'?",)),
    "no optimizer name": (drop("optimizer", "name"), ("optimizer.name", "required", "adamw")),
    "no optimizer": (drop("optimizer"), ("optimizer", "required")),
    "no learning rate": (drop("optimizer", "learning_rate"), ("optimizer.learning_rate",)),
    "negative learning rate": (put("optimizer.learning_rate", -0.1), ("greater than 0", "-0.1")),
    "learning rate as text": (put("optimizer.learning_rate", "fast"), ("number", "'fast'")),
    "infinite weight decay": (put("optimizer.weight_decay", float("inf")), ("weight_decay",)),
    "momentum of one": (put("optimizer.momentum", 1.0), ("optimizer.momentum", "less than 1")),
    "negative epochs": (put("training.epochs", -3), ("training.epochs", "greater than 0", "-3")),
    "half an epoch": (put("training.epochs", 0.5), ("training.epochs", "integer", "0.5")),
    "epochs as truth value": (put("training.epochs", True), ("training.epochs", "integer")),
    "section as a list": (put("training", [1]), ("training", "section")),
    "section left empty": (put("training", None), ("training", "section")),
    "unknown device": (put("training.device", "tpu"), ("training.device", "gpu:N", "tpu")),
    "smoothing of one": (put("training.label_smoothing", 1), ("training.label_smoothing",)),
    "unknown precision": (put("training.amp", {"level": "O3"}), ("training.amp.level", "O2")),
    "depth that does not exist": (put("model.depth", 19), ("model.depth", "18")),
    "depth without stages": (put("model.depth", []), ("model.depth", "stage sizes")),
    "depth as text": (put("model.depth", "18"), ("model.depth", "'18'")),
    "unknown stem": (put("model.stem", "cifer"), ("model.stem", "Did you mean 'cifar'?")),
    "unknown shortcut": (put("model.shortcut", "identity"), ("model.shortcut", "zero-pad")),
    "stride on a basic block": (put("model.stride_on", "1x1"), ("stride_on", "bottleneck")),
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
    "batch of nothing": (put("data.batch_size", 0), ("data.batch_size", "greater than 0")),
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
    "best loss is the highest": (put("checkpoint.monitor", "loss"), ("checkpoint.mode", "min")),
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
    "override that is not YAML": (["--config", "FILE", "--set", "a={"], ("not valid YAML",)),
    "unknown device": (["--config", "FILE", "--device", "tpu"], ("training.device", "tpu")),
    "GPU on a CPU build": (["--config", "FILE", "--device", "gpu:7"], ("training.device", "gpu:7")),
    "name that leaves the folder": (["--config", "FILE", "--name", "../x"], ("--name", "../x")),
    "run that exists": (["--config", "FILE", "--name", "taken"], ("taken", "exists already")),
    "view of nothing": (["view", "nowhere"], ("nowhere", "no such folder")),
    "view of a folder without runs": (["view", "OUTPUT"], ("no VisualDL records",)),
}


@pytest.mark.parametrize("mistake", ON_THE_COMMAND_LINE)
def test_on_the_command_line(mistake, tiny, write_yaml, tmp_path, capsys):
    arguments, words = ON_THE_COMMAND_LINE[mistake]
    output = tmp_path / "runs"
    (output / "taken").mkdir(parents=True)
    places = {"FILE": str(write_yaml(tiny)), "OUTPUT": str(output)}
    arguments = [places.get(a, a) for a in arguments]
    if "--config" in arguments:
        arguments += ["--output", str(output)]
    code, lines = run(capsys, *arguments)
    assert_refused(code, lines, *words)
    assert list(output.iterdir()) == [output / "taken"]
    assert not list((output / "taken").iterdir())
