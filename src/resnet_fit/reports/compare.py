"""Runs side by side: the settings they differ in, and what came out."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from resnet_fit.config.differences import differences
from resnet_fit.config.document import Path as Keys
from resnet_fit.errors import UserError, suggest
from resnet_fit.files import readable, require_existing
from resnet_fit.runs.outcome import (
    BEST,
    PARTS,
    Outcome,
    find_runs,
    read_outcome,
)
from resnet_fit.training.metric_names import better

# Sorted with the smallest first, like losses.
COSTS = ("epochs", "minutes", "parameters", "gmacs")
FIGURES = ("epochs", "minutes", "images_per_second", "parameters", "gmacs")


@dataclass(frozen=True)
class Difference:
    """A setting by its dotted key, and its value in each run; None where a run has none."""

    key: str
    values: list[Any]


@dataclass(frozen=True)
class Comparison:
    """Runs in the order in which they are to be shown.

    Attributes:
        runs: by label.
        by: the name that they are sorted by; None if they are in the order they were given.
        settings: of the configs, where they differ.
        environment: versions and hardware, where they differ.
        judged_on: whether the epochs' evaluations were made on ``validation`` or ``test`` images,
            where that differs; else empty.
    """

    runs: dict[str, Outcome]
    by: str | None
    settings: list[Difference]
    environment: list[Difference]
    judged_on: list[str | None]

    @property
    def metrics(self) -> list[str]:
        """Names of all metrics that a run has at its epochs: first of evaluations."""
        names = dict.fromkeys(name for run in self.runs.values() for name in run.last)
        return sorted(names, key=lambda name: PARTS.index(name.partition(".")[0]))

    @property
    def test_metrics(self) -> list[str]:
        """Names of the metrics on test images that were not used to judge epochs."""
        return list(dict.fromkeys(name for run in self.runs.values() for name in run.test))


def read_runs(places: Iterable[Path]) -> dict[str, Outcome]:
    """The runs at and below some folders, by the shortest paths that tell them apart.

    What cannot be read is left out with a warning in one line.

    Raises:
        UserError: a place is not there or holds no run, or not one run can be read.
    """
    outcomes: list[Outcome] = []
    problems: list[UserError] = []
    for folder in _distinct(places):
        try:
            outcomes.append(read_outcome(folder))
        except UserError as error:
            problems.append(error)
    if not outcomes:
        raise problems[0]
    for problem in problems:
        warnings.warn(f"left out: {readable(str(problem))}", stacklevel=2)
    labels = _labels([outcome.folder for outcome in outcomes])
    return dict(zip(labels, outcomes, strict=True))


def compare(runs: Mapping[str, Outcome], by: str | None = None) -> Comparison:
    """Lay runs side by side.

    Args:
        runs: by label; at least one.
        by: what to sort by, the best first: a name of `values_by_name`. Runs without such a value
            come last.

    Raises:
        UserError: no run has a value of this name.
    """
    ordered = dict(runs) if by is None else _sorted(runs, by)
    outcomes = list(ordered.values())
    judged_on = [outcome.summary.get("judged_on") for outcome in outcomes]
    known = {part for part in judged_on if part is not None}
    return Comparison(
        ordered,
        by,
        _differing([outcome.config for outcome in outcomes]),
        _differing([outcome.environment for outcome in outcomes]),
        judged_on if len(known) > 1 else [],
    )


def values_by_name(outcome: Outcome) -> dict[str, float]:
    """All that runs can be sorted by.

    ``eval.top1`` is the newest value, ``best.eval.top1`` the best of all epochs; ``test.top1``,
    ``epochs``, ``minutes``, ``images_per_second``, ``parameters`` and ``gmacs``.
    """
    figures = {name: getattr(outcome, name) for name in FIGURES}
    return {
        **outcome.last,
        **{BEST + name: best.value for name, best in outcome.best.items()},
        **{f"test.{name}": value for name, value in outcome.test.items()},
        **{name: value for name, value in figures.items() if value is not None},
    }


def _sorted(runs: Mapping[str, Outcome], by: str) -> dict[str, Outcome]:
    values = {label: values_by_name(outcome) for label, outcome in runs.items()}
    names = list(dict.fromkeys(name for each in values.values() for name in each))
    if by not in names:
        plain = ", ".join(name for name in names if not name.startswith(BEST))
        raise UserError(
            f"--by: no run has '{by}'.{suggest(by, names)} There are: {plain}; and the best of "
            f"all epochs, such as {BEST}eval.top1"
        )
    sign = 1 if by in COSTS or better(by) == "min" else -1

    def rank(label: str) -> float:
        value = values[label].get(by)
        return float("inf") if value is None else sign * value

    return {label: runs[label] for label in sorted(runs, key=rank)}


def _distinct(places: Iterable[Path]) -> list[Path]:
    """The runs' folders, each once however it was named."""
    found: dict[str, Path] = {}
    for place in places:
        require_existing(place)
        folders = list(find_runs(place)) if place.is_dir() else []
        if not folders:
            raise UserError(
                f"{place}: neither a run's folder nor a folder of runs; a run's has a "
                "metrics.jsonl after its first epoch"
            )
        for folder in folders:
            found.setdefault(os.path.realpath(folder), folder)
    return list(found.values())


def _labels(folders: Sequence[Path]) -> list[str]:
    """Paths below the deepest folder that all of them lie in, or as given if that is the root."""
    paths = [os.path.abspath(folder) for folder in folders]
    above = os.path.commonpath([os.path.dirname(path) for path in paths])
    if above == os.path.dirname(above):
        return [readable(str(folder)) for folder in folders]
    return [readable(os.path.relpath(path, above)) for path in paths]


def _differing(configs: Sequence[dict[str, Any]]) -> list[Difference]:
    """The settings in which any two configs differ, section by section; see `differences`."""
    paths: list[Keys] = []
    for section in dict.fromkeys(key for config in configs for key in config):
        kept = {_text(config.get(section)): config.get(section) for config in configs}
        found = dict.fromkeys(
            path
            for was, now in combinations(kept.values(), 2)
            for path, _, _ in differences(was, now, (section,))
        )
        # A list or section that two runs differ in as a whole is not shown piece by piece as well.
        paths += [p for p in found if not any(p[:n] in found for n in range(1, len(p)))]
    return [
        Difference(".".join(map(str, path)), [_at(config, path) for config in configs])
        for path in paths
    ]


def _at(config: Any, path: Keys) -> Any:
    for key in path:
        if isinstance(config, dict):
            config = config.get(key)
        elif isinstance(config, list) and isinstance(key, int) and key < len(config):
            config = config[key]
        else:
            return None
    return config


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
