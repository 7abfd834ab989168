"""Tables are lines of aligned columns in a file, and fit a terminal."""

from __future__ import annotations

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from resnet_fit.reports.table import print_table

ROWS = [("猫", "6,000", "[red]"), ("a dog", "17", "")]


def printed(header, rows, width=None, numbers=(1,)):
    file = io.StringIO()
    console = Console(
        file=file,
        width=width,
        force_terminal=width is not None,
        color_system=None,
        markup=False,
        highlight=False,
    )
    print_table(console, header, rows, numbers)
    return file.getvalue().splitlines()


def test_columns_of_a_file_are_aligned_where_characters_are_wide():
    assert printed(("class", "images", "note"), ROWS) == [
        "class  images  note",
        "猫      6,000  [red]",
        "a dog      17",
        "",
    ]


def test_a_file_may_have_a_table_without_titles():
    assert printed(None, [("top-1", "91.5 %"), ("loss", "0.3")]) == [
        "top-1  91.5 %",
        "loss      0.3",
        "",
    ]


@pytest.mark.parametrize("width", [20, 40, 79, 80, 120])
@pytest.mark.parametrize("header", [None, ("class", "images", "note")])
def test_tables_fit_a_terminal(width, header):
    rows = [*ROWS, ("a class of a long name with spaces", "1", "a note of some length")]
    lines = printed(header, rows, width)
    assert max(map(cell_len, lines)) <= width
    assert any("━" in line or "│" in line for line in lines) == (width >= 80)
    for row in ROWS:
        assert any(all(cell in line for cell in row) for line in lines) or width < 40
    if header:
        assert "images" in "".join(lines)
