"""``--dry-run``: the config that a run would have, sizes, measured time and memory, and no file."""

from __future__ import annotations

import hashlib
import math
import re
import shutil
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from PIL import Image
from rich.console import Console

from resnet_fit import fit, load_config, parse_config
from resnet_fit.cli import main
from resnet_fit.data.dataset import ArrayDataset
from resnet_fit.data.loading import AHEAD, ArrayLoader
from resnet_fit.errors import UserError
from resnet_fit.reports import dry_run as module
from resnet_fit.reports.dry_run import Metered, dry_run


@pytest.fixture(autouse=True)
def few_batches(monkeypatch):
    """Figures that cannot be trusted, at once."""
    monkeypatch.setattr(module, "TRAINING", (2, 0.0, math.inf))
    monkeypatch.setattr(module, "EVALUATION", (1, 0.0, math.inf))


@pytest.fixture
def alone(tmp_path, monkeypatch) -> Path:
    """An empty working directory, which is the home as well."""
    folder = tmp_path / "alone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("RESNET_FIT_DATA", raising=False)
    return folder


def lines_of(config, run=None) -> list[str]:
    console = Console(highlight=False, soft_wrap=True, markup=False, record=True, quiet=False)
    dry_run(config, console, run)
    return console.export_text().splitlines()


def test_what_is_printed_is_the_config_and_comments(alone, write_yaml, tiny, capsys):
    file = write_yaml(tiny)
    assert main(["--config", str(file), "--set", "training.epochs=5", "--dry-run"]) == 0
    text, complaints = capsys.readouterr()
    assert complaints == ""
    expected = load_config(file, ["training.epochs=5"])
    assert load_config(write_yaml(text, "printed.yaml")) == expected
    comments = "\n".join(re.findall(r"^# (.*)", text, re.MULTILINE))
    for pattern in (
        r"^cpu, \w+ backend$",
        r"^[\d,]+ parameters; [\d,]+ multiply-accumulates for an image in evaluation$",
        r"^1,437 images to train on, 360 to evaluate on; 23 batches an epoch, 115 in all$",
        r"^training takes about \S+ s an epoch \(\S+ images/s, from 2 batches after 2 to warm up",
        r"^evaluation takes about \S+ s an epoch \(\S+ images/s, from 1 batch after 2 to warm up",
        r"^the whole run takes about \S+ s$",
        r"^\d+\.\d GB of memory \(of \d+\.\d GB\) were held at most in these batches$",
    ):
        assert re.search(pattern, comments, re.MULTILINE), pattern
    assert not list(alone.iterdir())


@pytest.mark.parametrize(
    ("every", "when", "whole"),
    [(1, "an epoch", "1:00"), (2, "after every 2 epochs and the last one", "0:40")],
)
def test_evaluations_that_are_left_out_take_no_time(tiny, monkeypatch, every, when, whole):
    """Five epochs of 2 s, with five or three evaluations of 10 s."""
    measure = module._measure

    def measured(*arguments):
        found = measure(*arguments)
        for metered, seconds in zip(found, (2.0, 10.0), strict=True):
            metered.measured, metered.images = [seconds], metered.loader.count
        return found

    monkeypatch.setattr(module, "_measure", measured)
    tiny["training"] |= {"epochs": 5, "evaluate_every": every}
    lines = lines_of(parse_config(tiny))
    assert any(line.startswith("# training takes about 2.0 s an epoch (") for line in lines)
    assert any(line.startswith(f"# evaluation takes about 0:10 {when} (") for line in lines)
    assert f"# the whole run takes about {whole}" in lines


def test_a_checkpoint_is_as_large_as_told(tiny, tmp_path):
    tiny["training"] |= {"epochs": 1}
    tiny["callbacks"] = {"weight_average": {"decay": 0.9}}
    tiny["model"]["width"] = 64  # large enough for the names in a file not to matter
    (line,) = [line for line in lines_of(parse_config(tiny)) if "checkpoint" in line]
    told = float(line.split()[4]) * 1e6
    run = fit(parse_config(tiny), tmp_path, "run")
    real = sum(f.stat().st_size for f in (run.folder / "checkpoints" / "last").iterdir())
    assert told == pytest.approx(real, rel=0.03)


def test_a_run_to_go_on_with_stays_as_it_is(tiny, tmp_path, capsys):
    folder = fit(parse_config(tiny), tmp_path, "run").folder
    before = contents(folder)
    arguments = ["--resume", str(folder), "--set", "training.epochs=6", "--dry-run"]
    capsys.readouterr()
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert yaml.safe_load(text)["training"]["epochs"] == 6
    assert "# what is left, 4 of 6 epochs, takes about " in text
    assert contents(folder) == before
    shorter = ["--resume", str(folder), "--set", "training.epochs=1", "--dry-run"]
    assert main(shorter) == 2
    assert "received 1, expected 2 or more, which this run has begun" in capsys.readouterr().err
    shutil.rmtree(folder / "checkpoints")
    assert main(arguments) == 2
    assert "no checkpoint is there" in capsys.readouterr().err


def contents(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(f): hashlib.md5(f.read_bytes()).hexdigest() for f in files}


@pytest.mark.filterwarnings("ignore:.*makes only")
def test_what_makes_an_estimate_another_one_is_said(tiny):
    tiny["augmentation"]["progressive"] = {"start": 4}
    tiny["model"] = {"depth": [1, 1], "stem": "cifar", "width": 4, "stochastic_depth": 0.1}
    tiny["training"] |= {"accumulate": 3}
    tiny["callbacks"] = {
        "weight_average": {},
        "flip_average": {},
        "early_stopping": {"patience": 5},
    }
    text = "\n".join(lines_of(parse_config(tiny)))
    assert "from 3 batches after 3 to warm up, all images at full size)" in text
    assert ", 4 times through the network)" in text
    assert re.search(r"the whole run takes about \S+ s at most$", text, re.MULTILINE)


@pytest.mark.parametrize("arguments", [["training.epochs=0"], ["data.name=cifar10"]])
def test_mistakes_are_told_as_of_a_run(alone, write_yaml, tiny, arguments, capsys):
    overrides = [word for text in arguments for word in ("--set", text)]
    assert main(["--config", str(write_yaml(tiny)), *overrides, "--dry-run"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    if "cifar10" in arguments[0]:
        assert "cifar10 is not on this machine yet: a run downloads it to " in line
    assert not list(alone.iterdir())


@pytest.fixture
def photos(tmp_path) -> Path:
    for part in ("train", "val"):
        for label in "ab":
            folder = tmp_path / "photos" / part / label
            folder.mkdir(parents=True)
            for i in range(4):
                Image.fromarray(np.full((20, 24, 3), i, np.uint8)).save(folder / f"{i}.png")
    return tmp_path / "photos"


def test_nothing_is_kept_of_a_folder(alone, photos, tiny):
    tiny["data"] = {"name": "folder", "path": str(photos), "batch_size": 4, "workers": 0}
    tiny["data"]["cache"] = {"shorter_side": 16}
    tiny["augmentation"] = {
        "train": [{"random_resized_crop": {"size": 16}}, "normalize"],
        "eval": [{"center_crop": {"size": 16}}, "normalize"],
    }
    config = parse_config(tiny)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        lines = lines_of(config)
    assert any("8 of 8 images are not in data.cache yet" in str(w.message) for w in caught)
    assert any(line.startswith("# training takes about") for line in lines)
    assert not list(alone.iterdir())
    fit(config, alone / "runs", "run")
    assert {p.name for p in (alone / ".cache" / "resnet-fit").iterdir()} == {"images"}
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*data.cache")
        lines_of(config)


# --- how time is measured -------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch) -> SimpleNamespace:
    """Time that passes only where a test says so."""
    clock = SimpleNamespace(now=0.0)
    clock.perf_counter = lambda: clock.now
    monkeypatch.setattr(module, "time", clock)
    return clock


def loader_of(images: int) -> ArrayLoader:
    data = ArrayDataset(np.zeros((images, 1, 4, 4), np.uint8), np.zeros(images, np.int64), ("a",))
    return ArrayLoader(data, 4)


def test_first_steps_do_not_count(clock):
    metered = Metered(loader_of(400), least=5, seconds=3, most_seconds=15)
    for step, _ in enumerate(metered):
        clock.now += 30 if step == 0 else 0.5
    assert metered.warm_up == [30, 0.5][: max(2, AHEAD)]
    assert metered.measured == [0.5] * 6  # more than five, until three seconds are over
    assert metered.images_per_second == 8


@pytest.mark.parametrize(("step", "measured"), [(0.001, 3000), (1, 5), (4, 4), (60, 1)])
def test_quick_steps_are_measured_often_and_slow_ones_seldom(clock, step, measured):
    """The loader's epochs follow each other: 10 batches are in one."""
    metered = Metered(loader_of(40), least=5, seconds=3, most_seconds=15)
    for _ in metered:
        clock.now += step
    assert len(metered.measured) == pytest.approx(measured, abs=1)
    assert metered.images_per_second == pytest.approx(4 / step)


def test_whole_groups_of_accumulated_batches_are_measured(clock):
    """Of four batches one takes longer: that with the optimizer's step."""
    metered = Metered(loader_of(40), least=5, seconds=3, most_seconds=15, group=4)
    for step, _ in enumerate(metered):
        clock.now += 5 if step % 4 == 3 else 1
    assert len(metered.warm_up) == 4
    assert len(metered.measured) == 8
    assert metered.images_per_second == pytest.approx(4 / 2)


def test_images_that_cannot_be_read_are_told(tiny, tmp_path):
    for label in "ab":
        folder = tmp_path / "photos" / label
        folder.mkdir(parents=True)
        for i in range(8):
            (folder / f"{i}.png").write_bytes(b"no image")
    tiny["data"] = {"name": "folder", "path": str(tmp_path / "photos"), "validation": 0.5}
    tiny["augmentation"] = {
        "train": [
            {"random_resized_crop": {"size": 16}},
            {"normalize": {"mean": [0.5], "std": [1]}},
        ],
        "eval": [{"center_crop": {"size": 16}}, {"normalize": {"mean": [0.5], "std": [1]}}],
    }
    with pytest.raises(UserError, match="not an image"):
        lines_of(parse_config(tiny))
