"""What a run's folder tells of its outcome, also while it is running. Needs no Paddle."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from resnet_fit.checkpoints.files import CONFIG
from resnet_fit.config.document import read_document
from resnet_fit.errors import UserError
from resnet_fit.files import is_locked
from resnet_fit.training.metric_names import better

Row = dict[str, Any]
State = Literal["running", "finished", "stopped", "diverged", "failed"]

METRICS, SUMMARY, LOG, ENVIRONMENT = "metrics.jsonl", "summary.json", "run.log", "environment.json"
PARTS = ("eval", "train")
# Before a metric's name: the best value of all epochs instead of the newest.
BEST = "best."
# ``2026-11-26 10:50:52  `` before each line of a log.
TIME_LENGTH = 21


class Point(NamedTuple):
    """A value of a metric, and the epoch it is of."""

    value: float
    epoch: int


@dataclass(frozen=True)
class Outcome:
    """What came out of a run so far.

    Attributes:
        folder: of the run.
        state: ``stopped`` also after a kill or a crash, which leaves no message; ``failed`` where
            the log ends with an error other than a divergence.
        rows: of ``metrics.jsonl``, one for each epoch.
        config: of ``config.yaml``.
        environment: versions and hardware; empty where the folder does not say.
        summary: the content of ``summary.json``; empty before the first end of the run.
    """

    folder: Path
    state: State
    rows: list[Row]
    config: dict[str, Any]
    environment: dict[str, Any]
    summary: dict[str, Any]

    @property
    def epochs(self) -> int:
        """Epochs that are trained to their end."""
        return len(self.rows)

    @property
    def epochs_asked(self) -> int | None:
        """What ``training.epochs`` of the config asks for."""
        return _epochs_asked(self.config)

    @property
    def minutes(self) -> float | None:
        """From the start to the end of the last epoch, evaluations included."""
        return self.rows[-1]["seconds"] / 60 if self.rows else None

    @property
    def images_per_second(self) -> float | None:
        """Of the training in all epochs, without evaluations."""
        seconds = sum(row["train_seconds"] for row in self.rows)
        images = sum(row["images_per_second"] * row["train_seconds"] for row in self.rows)
        return images / seconds if seconds else None

    @property
    def parameters(self) -> int | None:
        return self.summary.get("parameters")

    @property
    def gmacs(self) -> float | None:
        """Multiply-accumulates for an image in evaluation, in billions."""
        macs = self.summary.get("macs")
        return None if macs is None else macs / 1e9

    @property
    def test(self) -> dict[str, float]:
        """Metrics of the test set, where there is one beside the images of the evaluations."""
        if self.summary.get("epochs") != self.epochs:
            return {}  # of an earlier end of this run
        return finite_only(self.summary.get("test") or {})

    @property
    def last(self) -> dict[str, float]:
        """The newest value of each metric, by names such as ``eval.top1``."""
        return {name: points[-1].value for name, points in self.curves().items()}

    @property
    def best(self) -> dict[str, Point]:
        """The best value of each metric, and the first epoch that had it."""
        return {
            name: (min if better(name) == "min" else max)(points, key=lambda point: point.value)
            for name, points in self.curves().items()
        }

    def curves(self) -> dict[str, list[Point]]:
        """The values of each metric by epoch, without those that are NaN or infinite."""
        found: dict[str, list[Point]] = {}
        for part in PARTS:
            for row in self.rows:
                for name, value in finite_only(row.get(part, {})).items():
                    found.setdefault(f"{part}.{name}", []).append(Point(value, row["epoch"]))
        return found


def finite_only(metrics: dict[str, float | None]) -> dict[str, float]:
    """The metrics that have a value: NaN and infinity are null in a file."""
    return {n: v for n, v in metrics.items() if v is not None and math.isfinite(v)}


def find_runs(place: Path) -> Iterator[Path]:
    """``place`` if it is a run's folder, or else the runs below it, by name.

    Hidden folders are left out, and links to folders are followed where they lead to a run.
    """
    if is_run(place):
        yield place
        return
    for child in sorted(place.iterdir()):
        if child.name.startswith(".") or not child.is_dir():
            continue
        if is_run(child):
            yield child
        elif not child.is_symlink():
            yield from find_runs(child)


def is_run(folder: Path) -> bool:
    """Whether a folder is a run's, which a checkpoint's is not."""
    if (folder / METRICS).is_file() or (folder / SUMMARY).is_file():
        return True
    return (folder / CONFIG).is_file() and (folder / LOG).is_file()


def read_outcome(folder: Path) -> Outcome:
    """Read a run's folder, of a finished run or another.

    Raises:
        UserError: a file of it is missing or damaged; the message names it.
    """
    config = read_document(folder / CONFIG).value
    running = is_locked(folder)  # first: what it writes at its end is then there to be read
    summary = _object(folder / SUMMARY) or {}
    if summary and not (folder / METRICS).is_file():
        raise UserError(f"{folder}: there is a {SUMMARY} but no {METRICS} in it")
    rows = _rows(folder / METRICS)
    environment = _object(folder / ENVIRONMENT) or summary.get("environment") or {}
    if "engine" in environment:  # the earlier name, which kept runs have
        environment = {("backend" if k == "engine" else k): v for k, v in environment.items()}
    state = "running" if running else _state(folder, rows, config, summary)
    return Outcome(folder, state, rows, config, environment, summary)


def _state(folder: Path, rows: list[Row], config: dict[str, Any], summary: dict[str, Any]) -> State:
    """How a run ended that is not running."""
    error = _last_error(folder / LOG)
    if error is not None:
        return "diverged" if "the training diverged" in error else "failed"
    # A run that goes on for more epochs keeps its earlier summary until its end.
    ended = summary.get("epochs") == len(rows) > 0
    same = _epochs_asked(summary.get("config", {})) == _epochs_asked(config)
    return "finished" if ended and same else "stopped"


def _epochs_asked(config: dict[str, Any]) -> int | None:
    training = config.get("training")
    epochs = training.get("epochs") if isinstance(training, dict) else None
    return epochs if isinstance(epochs, int) else None


def _last_error(log: Path) -> str | None:
    """The error that ended the last sitting of a run, if one did."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:  # results that were kept without it
        return None
    for line in reversed(lines):
        said = line[TIME_LENGTH:]
        if said.startswith("goes on from "):
            return None
        if said.startswith("error: "):
            return said
    return None


def _object(file: Path) -> dict[str, Any] | None:
    """A JSON object; None where there is no such file."""
    text = _text(file)
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError as error:
        raise UserError(f"{file}: damaged: {error}") from None
    if not isinstance(value, dict):
        raise UserError(f"{file}: damaged: expected a JSON object")
    return value


def _rows(file: Path) -> list[Row]:
    """Rows of ``metrics.jsonl``; none before the end of the first epoch."""
    lines = (_text(file) or "").splitlines()
    return [_row(line, f"{file}:{number}") for number, line in enumerate(lines, 1)]


def _text(file: Path) -> str | None:
    """The content of a text file; None where there is no such file."""
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise UserError(f"{file}: damaged: not a text file in UTF-8") from None


def _row(line: str, place: str) -> Row:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"{place}: damaged: {error}") from None
    numbers = ("epoch", "seconds", "train_seconds", "images_per_second")
    if (
        not isinstance(row, dict)
        or not all(isinstance(row.get(name), int | float) for name in numbers)
        or not all(_are_metrics(row.get(part, {})) for part in PARTS)
    ):
        raise UserError(
            f"{place}: damaged: expected an epoch's {', '.join(numbers)} and metrics by name"
        )
    return row


def _are_metrics(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(number, int | float | None) for number in value.values()
    )
