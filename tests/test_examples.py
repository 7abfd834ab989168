"""The examples, run by the command that each opens with."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest
from conftest import REPOSITORY
from PIL import Image

import resnet_fit
from resnet_fit import load_config
from resnet_fit.config.document import dump
from resnet_fit.networks import read_weights, resnet

EXAMPLES = REPOSITORY / "examples"
REFERENCES = REPOSITORY / "tests/networks/references"


# Nothing answers at this address: an example that wants the network fails.
NOWHERE = "http://127.0.0.1:9"


def run(example: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run an example from another folder, offline, with the copy of the library under test."""
    settings = {
        "PYTHONPATH": str(Path(resnet_fit.__file__).parents[1]),
        "http_proxy": NOWHERE,
        "https_proxy": NOWHERE,
    }
    return subprocess.run(
        [sys.executable, EXAMPLES / example, *map(str, arguments)],
        cwd=cwd,
        env=os.environ | settings,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture
def imported(tmp_path, monkeypatch) -> Path:
    """Examples can be imported, for what needs no process of its own; the working directory."""
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("example", sorted(p.name for p in EXAMPLES.glob("*.py")))
def test_opens_with_what_it_shows_and_its_command(example):
    first, empty, command, *_ = (EXAMPLES / example).read_text().splitlines()
    assert first.startswith('"""')
    assert first.endswith(".")
    assert empty == ""
    assert re.fullmatch(rf"    python examples/{example}( \S+)*", command)


def test_own_dataset(tmp_path):
    done = run("own_dataset.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch") == 3
    (share,) = re.findall(r"held out: ([\d.]+)% of 130 tiles", done.stdout)
    assert float(share) >= 85  # one class for all would be 50 %
    assert not list(tmp_path.iterdir())


def test_own_dataset_is_ten_lines():
    source = (EXAMPLES / "own_dataset.py").read_text()
    body = source.partition("def main() -> None:\n")[2].partition("\n\n\n")[0]
    assert len(body.split("\n\n")[-1].splitlines()) == 10


@pytest.mark.slow
def test_paddle_model(tmp_path):
    done = run("paddle_model.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    losses = [float(x) for x in re.findall(r"train loss ([\d.]+)", done.stdout)]
    assert len(losses) == 2
    assert losses[1] < losses[0] < np.log(1000)
    assert "written: checkpoints, metrics.jsonl, visualdl" in done.stdout
    ((again, before),) = re.findall(r"again: top1 (\S+), in training (\S+)", done.stdout)
    assert again == before


def test_convert_torchvision_weights(tmp_path):
    done = run("convert_weights.py", REFERENCES / "narrow.pth", "out.pdparams", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "62 tensors" in done.stdout
    assert "BasicBlock x [1, 1, 1, 1], stem imagenet, 5 classes" in done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["out.pdparams"]
    converted = resnet([1, 1, 1, 1], num_classes=5, width=2)
    paddle.Model(converted).load(str(tmp_path / "out"))
    original = read_weights(REFERENCES / "narrow.pth")
    assert set(converted.state_dict()) == set(original)
    for name, value in converted.state_dict().items():
        assert np.array_equal(value.numpy(), original[name]), name


def test_convert_paddle_vision_weights(tmp_path):
    theirs = paddle.vision.models.resnet50(num_classes=3)
    paddle.save(theirs.state_dict(), str(tmp_path / "theirs.pdparams"))
    done = run("convert_weights.py", "theirs.pdparams", "ours.pdparams", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "BottleneckBlock x [3, 4, 6, 3], stem imagenet, 3 classes" in done.stdout
    ours = resnet(50, num_classes=3, weights=tmp_path / "ours.pdparams").state_dict()
    for name, value in theirs.state_dict().items():
        assert np.array_equal(ours[name].numpy(), value.numpy()), name


@pytest.mark.parametrize(
    ("source", "target", "word"),
    [
        ("narrow.pht", "out.pdparams", "Did you mean 'narrow.pth'?"),
        ("tensors.pth", "out.pdparams", "not the weights of a ResNet"),
        ("make_torchvision.py", "out.pdparams", "is no weights file"),
        ("narrow.pth", "resnet18.v1.pdparams", "no other dot"),
        ("narrow.pth", "out.pth", "expected NAME.pdparams"),
    ],
)
def test_convert_refuses_in_one_line(source, target, word, imported, monkeypatch, capsys):
    from convert_weights import main

    arguments = ["convert_weights.py", str(REFERENCES / source), target]
    monkeypatch.setattr(sys, "argv", arguments)
    assert main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert word in line
    assert not list(imported.iterdir())


STUDY = """
title: Widths
set: [training.epochs=2, data.limit=200]
against: [epochs, minutes]
runs:
  narrow:
    label: of 4
    config: tiny.yaml
    set: [model.width=4, 'callbacks.weight_average={decay: 0.9}']
  wide: {label: of 8, config: tiny.yaml}
"""


@pytest.mark.slow
def test_study_trains_draws_and_goes_on(tmp_path, tiny):
    (tmp_path / "tiny.yaml").write_text(dump(tiny))
    (tmp_path / "widths.yaml").write_text(STUDY)
    done = run("study.py", "widths.yaml", "--set", "training.seed=3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    output = tmp_path / "runs" / "widths"
    assert sorted(p.name for p in output.iterdir()) == ["narrow", "wide", "widths.png"]
    with Image.open(output / "widths.png") as figure:
        width, height = figure.size
    # Two rows of two panels, and the names beside them.
    assert height == 748
    assert 990 < width < 1150
    summary = json.loads((output / "narrow" / "summary.json").read_text())
    assert (summary["config"]["model"]["width"], summary["config"]["training"]["seed"]) == (4, 3)
    top1, averaged = (f"{100 * summary['last']['eval'][n]:.2f} %" for n in ("top1", "ema_top1"))
    assert re.search(rf"^of 4 .*{top1}.*{averaged}", done.stdout, re.M)
    assert "model.width\n    4: of 4\n    8: of 8\n" in done.stdout
    # One is finished, the other is cut off: only that is trained.
    (output / "wide" / "summary.json").unlink()
    before = (output / "narrow" / "metrics.jsonl").stat().st_mtime_ns
    again = run("study.py", "widths.yaml", "--set", "training.seed=3", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "== narrow" not in again.stdout
    assert "== wide" in again.stdout
    assert (output / "narrow" / "metrics.jsonl").stat().st_mtime_ns == before
    assert (output / "wide" / "summary.json").exists()
    # One that ended before its first checkpoint has nothing to go on from.
    (output / "wide" / "summary.json").unlink()
    shutil.rmtree(output / "wide" / "checkpoints")
    anew = run("study.py", "widths.yaml", "--set", "training.seed=3", cwd=tmp_path)
    assert anew.returncode == 0, anew.stderr
    assert (output / "wide" / "summary.json").exists()
    # Figures of the old seed would pass for those of another.
    other = run("study.py", "widths.yaml", "--set", "training.seed=4", cwd=tmp_path)
    assert other.returncode == 2
    assert other.stderr.splitlines() == [
        "runs/widths/narrow: trained with training.seed 3, which is 4 in this study now; "
        "choose another --output or delete that run"
    ]


@pytest.mark.parametrize("file", sorted((EXAMPLES / "studies").glob("*.yaml")))
def test_shipped_studies_are_of_valid_experiments(file, imported):
    from study import read_study

    study = read_study(file)
    for of in study.runs.values():
        load_config(file.parent / of.config, [*study.set, *of.set])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("title: x\nruns: {}\n", "study.yaml:2: runs: "),
        ("title: x\nruns: {a: {label: a, confg: b}}\n", "Did you mean 'config'?"),
        ("title: x\nruns: {a: {label: a, config: b.yaml}}\n", "no such config file"),
        ("title: x\ndraw: [eval.top]\nruns: {}\n", "Did you mean 'eval.top1'?"),
        ("title: x\nruns: {a: {label: a, config: b}, c: {label: a, config: b}}\n", "label 'a'"),
    ],
)
def test_mistakes_in_a_study_are_told_in_one_line_each(text, words, imported, capsys):
    from study import main

    (imported / "study.yaml").write_text(text)
    assert main(["study.yaml"]) == 2
    assert words in capsys.readouterr().err
    assert not (imported / "runs").exists()
