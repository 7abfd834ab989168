"""What a run's folder tells of its outcome, whatever state the run is in."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from conftest import REPOSITORY, TINY

from resnet_fit import fit, parse_config
from resnet_fit.errors import RunFailed, UserError
from resnet_fit.files import is_locked, lock
from resnet_fit.runs.outcome import find_runs, read_outcome

KEPT = sorted(p.parent for p in (REPOSITORY / "docs/results").rglob("summary.json"))
SMALL = ["data.limit=200", "data.batch_size=100"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return fit(parse_config(TINY, SMALL), folder, "finished").folder


@pytest.fixture
def run(finished, tmp_path):
    """A copy of a finished run without its checkpoints, for a test to change."""
    folder = tmp_path / "run"
    folder.mkdir()
    for file in finished.iterdir():
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    return folder


def log(run: Path, *lines: str) -> None:
    with open(run / "run.log", "a", encoding="utf-8") as file:
        file.writelines(f"2026-11-26 10:50:52  {line}\n" for line in lines)


@pytest.mark.parametrize("folder", KEPT, ids=lambda folder: folder.name)
def test_figures_of_kept_runs_are_those_of_their_summaries(folder):
    outcome = read_outcome(folder)
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert outcome.state == "finished"
    assert outcome.epochs == outcome.epochs_asked == summary["epochs"]
    assert outcome.minutes == summary["seconds"] / 60
    assert outcome.parameters == summary["parameters"]
    assert outcome.gmacs == summary["macs"] / 1e9
    assert outcome.images_per_second == pytest.approx(summary["images_per_second"], rel=0.01)
    for part in ("train", "eval"):
        expected = {f"{part}.{name}": value for name, value in summary["last"][part].items()}
        assert expected.items() <= outcome.last.items()
    best = summary["best"]
    assert outcome.best["eval.top1"] == (best["eval"]["top1"], best["epoch"])


def test_the_backend_of_kept_runs_has_its_present_name():
    for folder in KEPT:
        environment = read_outcome(folder).environment
        assert environment["backend"] == "onednn"
        assert "engine" not in environment


def test_the_best_loss_is_the_lowest(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for row, loss in zip(rows, (0.5, 0.7), strict=True):
        row["eval"]["loss"] = loss
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    outcome = read_outcome(run)
    assert outcome.last["eval.loss"] == 0.7
    assert outcome.best["eval.loss"] == (0.5, 1)


def test_a_finished_run_and_the_same_run_while_it_is_trained(finished):
    assert read_outcome(finished).state == "finished"
    with lock(finished):
        assert is_locked(finished)
        assert read_outcome(finished).state == "running"
    assert read_outcome(finished).state == "finished"


def test_looking_at_a_lock_writes_nothing(tmp_path):
    assert not is_locked(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_run_that_was_killed_in_its_second_epoch(run):
    (run / "summary.json").unlink()
    first = (run / "metrics.jsonl").read_text().splitlines()[0]
    (run / "metrics.jsonl").write_text(f"{first}\n")
    outcome = read_outcome(run)
    assert (outcome.state, outcome.epochs, outcome.epochs_asked) == ("stopped", 1, 2)
    assert outcome.parameters is None
    assert outcome.last["eval.top1"] == json.loads(first)["eval"]["top1"]


def test_a_run_before_the_end_of_its_first_epoch(run):
    (run / "summary.json").unlink()
    (run / "metrics.jsonl").unlink()
    outcome = read_outcome(run)
    assert (outcome.state, outcome.epochs, outcome.minutes) == ("stopped", 0, None)
    assert outcome.last == {}


def test_an_epoch_that_is_not_evaluated_yet(run):
    first, second = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    del second["eval"]
    (run / "metrics.jsonl").write_text(f"{json.dumps(first)}\n{json.dumps(second)}\n")
    outcome = read_outcome(run)
    assert outcome.last["train.loss"] == second["train"]["loss"]
    assert outcome.last["eval.loss"] == first["eval"]["loss"]


def test_a_finished_run_that_was_to_go_on_and_was_killed(run):
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("epochs: 2", "epochs: 5"))
    assert read_outcome(run).state == "stopped"


def test_how_the_last_sitting_ended_counts(run):
    (run / "summary.json").unlink()
    log(run, "error: no space left on device")
    assert read_outcome(run).state == "failed"
    log(run, "goes on from run/checkpoints/last after step 4")
    assert read_outcome(run).state == "stopped"
    log(run, "error: the training diverged: the loss became nan in epoch 2 at step 5")
    assert read_outcome(run).state == "diverged"


def test_a_training_that_really_diverged(tmp_path):
    with pytest.raises(RunFailed, match="the training diverged"):
        fit(parse_config(TINY, [*SMALL, "optimizer.learning_rate=1e30"]), tmp_path, "wild")
    assert read_outcome(tmp_path / "wild").state == "diverged"


def test_test_metrics_of_an_earlier_end_are_not_those_of_now(run):
    summary = json.loads((run / "summary.json").read_text())
    summary["test"] = {"top1": 0.5}
    (run / "summary.json").write_text(json.dumps(summary))
    assert read_outcome(run).test == {"top1": 0.5}
    rows = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(rows + rows.splitlines()[-1] + "\n")
    assert read_outcome(run).test == {}


def test_a_metric_that_became_nan_has_no_value(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows[1]["eval"]["top1"] = None
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert read_outcome(run).last["eval.top1"] == rows[0]["eval"]["top1"]


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("metrics.jsonl", '{"epoch": 1', "metrics.jsonl:1: damaged: "),
        ("metrics.jsonl", '{"epoch": 1}', "metrics.jsonl:1: damaged: expected an epoch's"),
        ("metrics.jsonl", "[]", "metrics.jsonl:1: damaged: expected an epoch's"),
        ("metrics.jsonl", b"\xff\xfe", "metrics.jsonl: damaged: not a text file"),
        ("metrics.jsonl", None, "there is a summary.json but no metrics.jsonl in it"),
        ("summary.json", "{", "summary.json: damaged: "),
        ("summary.json", "3", "summary.json: damaged: expected a JSON object"),
        ("config.yaml", "a: [", "config.yaml:1: not valid YAML: "),
        ("config.yaml", None, "config.yaml: cannot be read: No such file"),
    ],
)
def test_a_damaged_file_is_named_in_one_line(run, file, content, words):
    if content is None:
        (run / file).unlink()
    elif isinstance(content, bytes):
        (run / file).write_bytes(content)
    else:
        (run / file).write_text(content)
    with pytest.raises(UserError) as error:
        read_outcome(run)
    assert words in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_runs_are_found_below_a_folder_and_checkpoints_are_none(finished, tmp_path):
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "linked").symlink_to(finished)
    (tmp_path / "empty").mkdir()
    (tmp_path / ".hidden").symlink_to(finished)
    assert list(find_runs(tmp_path)) == [tmp_path / "study" / "linked"]
    assert list(find_runs(finished)) == [finished]
    assert list(find_runs(finished / "checkpoints")) == []
    assert list(find_runs(finished.parent)) == [finished]


def test_links_in_a_circle_end(tmp_path):
    os.symlink(tmp_path, tmp_path / "again")
    assert list(find_runs(tmp_path)) == []
