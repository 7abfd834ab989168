"""Output formats of predictions: text, CSV, and JSON.

Each is a generator of text from rows, so that results are written before all rows are known.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from resnet_fit.files import json_text, readable
from resnet_fit.terminal import packed, padded

# The widest columns for file and class names, so that one long name does not widen all rows.
WIDEST_FILE, WIDEST_CLASS = 60, 20


@dataclass(frozen=True)
class Row:
    """A file with its most probable classes and their probabilities, in descending order."""

    file: str
    classes: tuple[tuple[str, float], ...]

    @classmethod
    def of(cls, file: str, probabilities: np.ndarray, classes: Sequence[str], top: int) -> Row:
        order = np.argsort(-probabilities, kind="stable")[:top]
        return cls(file, tuple((classes[i], float(f"{probabilities[i]:.7g}")) for i in order))


@dataclass(frozen=True)
class Layout:
    """The layout of all rows.

    Attributes:
        top: classes in each row.
        file_width, class_width: widths of the name columns, for `text`.
        width: of the terminal; None if the output is not a terminal.
    """

    top: int
    file_width: int
    class_width: int
    width: int | None

    @classmethod
    def of(
        cls, top: int, files: Sequence[str], classes: Sequence[str], width: int | None
    ) -> Layout:
        return cls(top, _longest(files, WIDEST_FILE), _longest(classes, WIDEST_CLASS), width)


def text(rows: Iterable[Row], layout: Layout) -> Iterator[str]:
    """A line for each file, or several on a narrow terminal."""
    for row in rows:
        name = padded(readable(row.file), layout.file_width)
        pieces = [
            f"{padded(readable(label), layout.class_width)} {100 * probability:6.2f} %"
            for label, probability in row.classes
        ]
        lines = packed([name, *pieces], layout.width)
        yield "".join(f"{line.rstrip()}\n" for line in lines)


def as_csv(rows: Iterable[Row], layout: Layout) -> Iterator[str]:
    """A header, and a line for each file: its path, then name and probability of each class."""
    yield _csv_line(
        [
            "file",
            *(f"{what}_{i + 1}" for i in range(layout.top) for what in ("class", "probability")),
        ]
    )
    for row in rows:
        yield _csv_line(
            [_utf8(row.file), *(v for name, share in row.classes for v in (_utf8(name), share))]
        )


def as_json(rows: Iterable[Row], layout: Layout) -> Iterator[str]:
    """One array, with one object per line for each file."""
    separator = "[\n"
    for row in rows:
        predictions = [{"class": label, "probability": p} for label, p in row.classes]
        value = {"file": row.file, "predictions": predictions}
        yield separator + json_text(value, indent=None).rstrip("\n")
        separator = ",\n"
    yield "[]\n" if separator == "[\n" else "\n]\n"


FORMATS: dict[str, Callable[[Iterable[Row], Layout], Iterator[str]]] = {
    "text": text,
    "csv": as_csv,
    "json": as_json,
}


def _longest(names: Sequence[str], most: int) -> int:
    from rich.cells import cell_len

    return min(most, max((cell_len(readable(name)) for name in names), default=0))


def _csv_line(values: Sequence[object]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue()


def _utf8(name: str) -> str:
    """A name with bytes that are not UTF-8 escaped, which would make the whole file invalid."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
