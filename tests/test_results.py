"""The tables of results say what the kept runs say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from conftest import REPOSITORY

from resnet_fit.config.shipped import shipped
from resnet_fit.reports.compare import read_runs
from resnet_fit.reports.curves import points
from resnet_fit.runs.config import load_config

PAGES = ("docs/results.md", "docs/results/NOTES.md")
TEXT = "".join((REPOSITORY / page).read_text("utf-8") for page in PAGES)
ROWS = re.findall(r"^\| `(docs/results/[\w/-]+)` \|.*?\| ([\d.]+) % \|.*\| (\d+) \|$", TEXT, re.M)
TIMES = re.findall(
    r"^\| `(docs/results/[\w/-]+)` \|.*\| (\d+) (s|min)\b[^|]*\| \d+ \|$", TEXT, re.M
)
LEVELS = (84.15, 90.0, 92.0)
MINUTES_TO = re.findall(
    r"^\| `(docs/results/[\w/-]+)` \| [^|%]+ \| (\d+|–) \| (\d+|–) \| (\d+|–) \|$", TEXT, re.M
)
COMPARED = read_runs([REPOSITORY / "docs/results"])


def test_every_kept_run_is_in_a_table():
    kept = [p.parent for p in (REPOSITORY / "docs/results").rglob("summary.json")]
    assert {str(p.relative_to(REPOSITORY)) for p in kept} == {folder for folder, *_ in ROWS}
    assert {f"docs/results/{name}" for name in COMPARED} == {folder for folder, *_ in ROWS}


@pytest.mark.parametrize(("folder", "accuracy", "epochs"), ROWS)
def test_row_is_what_the_run_says(folder, accuracy, epochs):
    summary = json.loads((REPOSITORY / folder / "summary.json").read_text(encoding="utf-8"))
    rows = (REPOSITORY / folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert f"{summary['last']['eval']['top1']:.2%}".rstrip("%") == accuracy
    assert json.loads(rows[-1]) == summary["last"]
    assert len(rows) == summary["epochs"] == int(epochs)
    assert summary["judged_on"] == "test"


@pytest.mark.parametrize(("folder", "time", "unit"), TIMES)
def test_time_is_what_compare_shows(folder, time, unit):
    minutes = COMPARED[folder.removeprefix("docs/results/")].minutes
    assert minutes is not None
    assert round(minutes * (60 if unit == "s" else 1)) == int(time)


def test_the_table_of_runs_gives_times():
    assert len(TIMES) > 20


@pytest.mark.parametrize(("folder", "given"), [(folder, row) for folder, *row in MINUTES_TO])
def test_minutes_are_those_of_the_first_epoch_at_that_accuracy(folder, given):
    curve = points(COMPARED[folder.removeprefix("docs/results/")], "eval.top1", "minutes")
    reached = [[m for m, top1 in zip(*curve, strict=True) if top1 >= level] for level in LEVELS]
    assert given == [f"{minutes[0]:.0f}" if minutes else "–" for minutes in reached]


def test_minutes_are_given_for_these_accuracies():
    shares = "".join(f" | {level:g} %" for level in LEVELS)
    assert f"| run | processor{shares} |" in TEXT
    assert len(MINUTES_TO) > 3


AIMS = re.findall(r"^\| `(configs/\w+\.yaml)`[^|]*\| (\d+) % \| ([\d.]+(?:, [\d.]+)*) ", TEXT, re.M)


@pytest.mark.parametrize(("config", "aim", "reached"), AIMS)
def test_what_was_not_reached_is_what_runs_of_the_config_say(config, aim, reached):
    same_seed = ["training.seed=0"]
    settings = load_config(REPOSITORY / config, same_seed)
    top1 = [
        run.last["eval.top1"]
        for name, run in sorted(COMPARED.items())
        if name.startswith(Path(config).stem)
        and load_config(run.folder / "config.yaml", same_seed) == settings
    ]
    assert [f"{100 * share:.2f}" for share in top1] == reached.split(", ")
    assert 100 * max(top1) < float(aim)


def test_aims_are_listed():
    assert len(AIMS) == 3


CONFIGS = sorted((REPOSITORY / "configs").glob("*.yaml"))
# No run of these is kept: they take a GPU, or images of one's own.
WITHOUT_A_RUN = {
    "resnet18_cifar_fast",
    "resnet18_finetune",
    "resnet18_folder",
    "resnet50_imagenet_a3",
    "resnet50_imagenet_v1",
    "resnet50_imagenet_v2",
}


def header_of(config):
    lines = config.read_text(encoding="utf-8").splitlines()
    return " ".join(line.removeprefix("#").strip() for line in lines if line.startswith("#"))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.stem)
def test_header_of_a_config_says_what_its_runs_say(config):
    header = header_of(config)
    names = re.findall(r"docs/results/([a-z]\w+)", header)
    assert bool(names) == (config.stem not in WITHOUT_A_RUN)
    for name in names:
        assert f"{100 * COMPARED[name].last['eval.top1']:.2f}" in header, name


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.stem)
def test_what_a_header_says_was_measured_is_listed(config):
    (found,) = (each for each in shipped() if each.name == config.stem)
    assert bool(found.measured) == ("Measured" in header_of(config))


@pytest.mark.parametrize("folder", [folder for folder, *_ in ROWS])
def test_kept_config_still_runs(folder):
    config = load_config(REPOSITORY / folder / "config.yaml")
    summary = json.loads((REPOSITORY / folder / "summary.json").read_text(encoding="utf-8"))
    assert config.training.epochs == summary["epochs"]
