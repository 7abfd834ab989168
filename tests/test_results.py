"""The tables of results say what the kept runs say."""

from __future__ import annotations

import json
import re

import pytest
from conftest import REPOSITORY

from resnet_fit.reports.compare import read_runs
from resnet_fit.runs.config import load_config

PAGES = ("docs/results.md", "docs/results/NOTES.md")
TEXT = "".join((REPOSITORY / page).read_text("utf-8") for page in PAGES)
ROWS = re.findall(r"^\| `(docs/results/[\w/-]+)` \|.*?\| ([\d.]+) % \|.*\| (\d+) \|$", TEXT, re.M)
TIMES = re.findall(
    r"^\| `(docs/results/[\w/-]+)` \|.*\| (\d+) (s|min)\b[^|]*\| \d+ \|$", TEXT, re.M
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


@pytest.mark.parametrize(("folder", "accuracy", "epochs"), ROWS)
def test_row_is_what_compare_shows(folder, accuracy, epochs):
    outcome = COMPARED[folder.removeprefix("docs/results/")]
    assert f"{100 * outcome.last['eval.top1']:.2f}" == accuracy
    assert (outcome.state, outcome.epochs) == ("finished", int(epochs))


@pytest.mark.parametrize(("folder", "time", "unit"), TIMES)
def test_time_is_what_compare_shows(folder, time, unit):
    minutes = COMPARED[folder.removeprefix("docs/results/")].minutes
    assert minutes is not None
    assert round(minutes * (60 if unit == "s" else 1)) == int(time)


def test_the_table_of_runs_gives_times():
    assert len(TIMES) > 20


@pytest.mark.parametrize("folder", [folder for folder, *_ in ROWS])
def test_kept_config_still_runs(folder):
    config = load_config(REPOSITORY / folder / "config.yaml")
    summary = json.loads((REPOSITORY / folder / "summary.json").read_text(encoding="utf-8"))
    assert config.training.epochs == summary["epochs"]
