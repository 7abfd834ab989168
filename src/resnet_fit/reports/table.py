"""Tables for people on a terminal of any width, and for files and pipes."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich.box import HEAVY_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from resnet_fit.terminal import padded

# Columns of a terminal from which on tables have lines around them.
ROOMY = 80


def print_table(
    console: Console,
    header: Sequence[str] | None,
    rows: Sequence[Sequence[str]],
    numbers: Collection[int] = (),
) -> None:
    """A table that fits a terminal, and elsewhere lines of aligned columns and an empty one.

    Args:
        header: the titles of the columns, or None for a table without.
        numbers: the columns that are aligned to the right and never broken.
    """
    if console.is_terminal:
        box = HEAVY_HEAD if console.width >= ROOMY else None
        table = Table(box=box, pad_edge=box is not None, show_header=header is not None)
        for column, title in enumerate(header or [""] * len(rows[0])):
            is_number = column in numbers
            table.add_column(
                title,
                justify="right" if is_number else "left",
                no_wrap=is_number,
                overflow="fold",
            )
        for row in rows:
            table.add_row(*row)
        console.print(table)
        return
    lines = rows if header is None else [header, *rows]
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (
            padded(cell, width, right=column in numbers)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        console.print("  ".join(cells).rstrip())
    console.print()
