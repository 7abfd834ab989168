"""A comparison of runs as text, as Markdown for GitHub, and as JSON."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from rich.cells import cell_len

from resnet_fit.config.yaml12 import Dumper
from resnet_fit.files import json_text, readable
from resnet_fit.reports.compare import FIGURES, Comparison, Difference
from resnet_fit.runs.outcome import BEST, Outcome
from resnet_fit.terminal import padded
from resnet_fit.training.metric_names import is_share

NOTHING = "-"
GAP = "  "
# Names of runs are folded to this in a narrow terminal: a metric and its best fit beside it in 40.
NARROWEST_NAME = 15


@dataclass(frozen=True)
class Column:
    """One column of the results: its header, and a cell for each run."""

    header: str
    cells: list[str]
    left: bool = False

    @property
    def width(self) -> int:
        return max(map(cell_len, (self.header, *self.cells)))


@dataclass(frozen=True)
class Values:
    """A setting with the runs that have each of its values, the commonest value last."""

    key: str
    runs: dict[str, list[str]]


def as_text(comparison: Comparison, width: int | None = None) -> str:
    """Tables of no more than ``width`` characters a line, without a limit by default.

    Where the results do not fit they are continued in further tables with the same runs.
    """
    blocks = [_title(comparison), *_tables(comparison, width)]
    for title, differing in _sections(comparison):
        lines = [f"{title}:", *_setting_lines(differing, comparison, width)]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def as_markdown(comparison: Comparison) -> str:
    """Tables for a page on GitHub."""
    columns = [Column("run", [_code(name) for name in comparison.runs], left=True)]
    columns += [column for group in _groups(comparison) for column in group]
    rows = zip(*(column.cells for column in columns), strict=True)
    blocks = [
        _markdown_table(
            [column.header for column in columns], rows, [column.left for column in columns]
        )
    ]
    for title, differing in _sections(comparison):
        table = (
            (_code(values.key), _code(value), _runs(names, comparison, _code))
            for values in _grouped(differing, comparison)
            for value, names in values.runs.items()
        )
        blocks.append(f"{title.capitalize()}:")
        blocks.append(_markdown_table(["setting", "value", "runs"], table, [True] * 3))
    return "\n\n".join(blocks) + "\n"


def as_json(comparison: Comparison) -> str:
    """One object; docs/compare.md tells its keys."""
    runs = [
        {
            "run": name,
            **_run_json(run),
            "settings": _of_run(comparison.settings, i),
            "environment": _of_run(comparison.environment, i),
        }
        for i, (name, run) in enumerate(comparison.runs.items())
    ]
    return json_text({"by": comparison.by, "runs": runs})


def _run_json(run: Outcome) -> dict[str, Any]:
    return {
        "folder": readable(str(run.folder)),
        "state": run.state,
        "epochs_asked": run.epochs_asked,
        **{name: getattr(run, name) for name in FIGURES},
        "judged_on": run.summary.get("judged_on"),
        "last": run.last,
        "best": {name: best._asdict() for name, best in run.best.items()},
        "test": run.test,
    }


def _of_run(differing: Sequence[Difference], index: int) -> dict[str, Any]:
    return {difference.key: difference.values[index] for difference in differing}


def _title(comparison: Comparison) -> str:
    count = len(comparison.runs)
    runs = f"{count} runs" if count > 1 else "1 run"
    return runs if comparison.by is None else f"{runs} by {comparison.by}, the best first"


def _sections(comparison: Comparison) -> Iterator[tuple[str, list[Difference]]]:
    if comparison.settings:
        yield "settings that differ", comparison.settings
    if comparison.environment:
        yield "machines that differ", comparison.environment


# --- results ----------------------------------------------------------------------------


def _groups(comparison: Comparison) -> list[list[Column]]:
    """Columns that stay beside each other; those that runs are sorted by come first."""
    runs = list(comparison.runs.values())
    groups = [[Column("state", [run.state for run in runs], left=True)]]
    if comparison.judged_on:
        cells = [part or NOTHING for part in comparison.judged_on]
        groups[0].append(Column("judged on", cells, left=True))
    groups += [[Column(name, [_figure(run, name) for run in runs])] for name in FIGURES]
    for name in comparison.test_metrics:
        groups.append([Column(f"test.{name}", [_metric(name, run.test.get(name)) for run in runs])])
    for name in comparison.metrics:
        last = [_metric(name, run.last.get(name)) for run in runs]
        best = [_best(name, run) for run in runs]
        groups.append([Column(name, last), Column("best (epoch)", best)])
    shown = [group for group in groups if any(set(c.cells) != {NOTHING} for c in group)]
    wanted = (comparison.by or "").removeprefix(BEST)
    first = [group for group in shown if group[0].header == wanted]
    return [*first, *(group for group in shown if group[0].header != wanted)]


def _figure(run: Outcome, name: str) -> str:
    value = getattr(run, name)
    if name == "epochs":
        asked = run.epochs_asked
        return f"{value}" if asked in (None, value) else f"{value} of {asked}"
    if value is None:
        return NOTHING
    if name == "parameters":
        return f"{value:,}"
    return f"{value:,.1f}" if name in ("minutes", "images_per_second") else f"{value:.4g}"


def _metric(name: str, value: float | None) -> str:
    if value is None:
        return NOTHING
    return f"{100 * value:.2f} %" if is_share(name) else f"{value:.4f}"


def _best(name: str, run: Outcome) -> str:
    best = run.best.get(name)
    return NOTHING if best is None else f"{_metric(name, best.value)} ({best.epoch})"


def _tables(comparison: Comparison, width: int | None) -> Iterator[str]:
    """The results in as many tables as the width asks for, each with the names of the runs."""
    groups = _groups(comparison)
    names = list(comparison.runs)
    longest = max(map(cell_len, ("run", *names)))
    room = longest
    if width is not None:
        room = min(longest, max(NARROWEST_NAME, width - max(map(_width, groups))))
    table: list[Column] = []
    used = room
    for part in _parts(groups, None if width is None else width - room):
        needed = _width(part)
        if table and width is not None and used + needed > width:
            yield _table(names, table, room)
            table, used = [], room
        table += part
        used += needed
    yield _table(names, table, room)


def _width(columns: Sequence[Column]) -> int:
    return sum(len(GAP) + column.width for column in columns)


def _parts(groups: list[list[Column]], room: int | None) -> Iterator[list[Column]]:
    """The groups, those that are wider than the room column by column under their own header."""
    for group in groups:
        if room is None or _width(group) <= room:
            yield group
            continue
        first, *others = group
        yield [first]
        for column in others:
            yield [Column(f"{BEST}{first.header}", column.cells)]


def _table(names: Sequence[str], columns: Sequence[Column], room: int) -> str:
    lines = [_line("run", room, [(c.header, c) for c in columns])]
    for i, name in enumerate(names):
        *above, last = _folded(name, room)
        lines += above
        lines.append(_line(last, room, [(c.cells[i], c) for c in columns]))
    return "\n".join(lines)


def _line(name: str, room: int, cells: Sequence[tuple[str, Column]]) -> str:
    line = padded(name, room)
    for text, column in cells:
        line += GAP + padded(text, column.width, right=not column.left)
    return line.rstrip()


def _folded(name: str, room: int) -> list[str]:
    """A name in lines of ``room``, each but the last with a backslash at its end."""
    lines = []
    while cell_len(name) > room:
        cut = room - 1
        while cell_len(name[:cut]) > room - 1:  # wide characters take two places
            cut -= 1
        lines.append(name[:cut] + "\\")
        name = name[cut:]
    return [*lines, name]


# --- settings ---------------------------------------------------------------------------


def _grouped(differing: Sequence[Difference], comparison: Comparison) -> Iterator[Values]:
    for difference in differing:
        runs: dict[str, list[str]] = {}
        for name, value in zip(comparison.runs, difference.values, strict=True):
            runs.setdefault(_value(value), []).append(name)
        ordered = sorted(runs.items(), key=lambda item: len(item[1]))
        yield Values(readable(difference.key), dict(ordered))


def _runs(names: list[str], comparison: Comparison, shown: Callable[[str], str] = str) -> str:
    """Names of runs; where most of them have one value, the number of those."""
    if len(names) > max(3, len(comparison.runs) / 2):
        return f"the other {len(names)}"
    return ", ".join(map(shown, names))


def _value(value: Any) -> str:
    """A setting in one line, as YAML has it; what a run does not set as a dash."""
    if value is None:
        return NOTHING
    text = yaml.dump(
        [value],
        Dumper=Dumper,
        sort_keys=False,
        default_flow_style=True,
        allow_unicode=True,
        width=math.inf,
    )
    return readable(text.strip()[1:-1])


def _setting_lines(
    differing: Sequence[Difference], comparison: Comparison, width: int | None
) -> Iterator[str]:
    for values in _grouped(differing, comparison):
        yield from _wrapped(values.key, "  ", width)
        for value, names in values.runs.items():
            yield from _wrapped(f"{value}: {_runs(names, comparison)}", "    ", width)


def _wrapped(text: str, indent: str, width: int | None) -> list[str]:
    if width is None:
        return [indent + text]
    return textwrap.wrap(
        text, width, initial_indent=indent, subsequent_indent=indent + "  ", break_on_hyphens=False
    )


# --- Markdown ---------------------------------------------------------------------------


def _markdown_table(
    header: Sequence[str], rows: Iterable[Sequence[str]], left: Sequence[bool]
) -> str:
    lines = [header, ["---" if is_left else "---:" for is_left in left], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _code(text: str) -> str:
    """Text that stands as it is in a cell: a code span, longer than any backticks in it."""
    fence = max(re.findall("`+", text), key=len, default="") + "`"
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{space}{text}{space}{fence}".replace("|", "\\|")
