"""The progress line at the bottom of a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.segment import Segment

SHORTEST_BAR, LONGEST_BAR = 6, 40
BAR_RANK = 3


@dataclass(frozen=True)
class Column:
    """A piece of the line. A narrow terminal leaves out the columns of the highest rank first.

    A column of rank 1 keeps its text when another title begins.
    """

    text: str
    rank: int


class LiveLine:
    """A title, a progress bar and columns, in one line that fits the terminal's width.

    On a narrow terminal the bar becomes shorter first; then columns of the highest ranks are left
    out, and the bar itself at `BAR_RANK`. A column keeps the width of its longest text so far, so
    that columns do not move. The line is erased at the end. If the output is not a terminal,
    nothing is shown.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._title, self._share = "", 0.0
        self._columns: tuple[Column, ...] = ()
        self._live: Live | None = None

    @property
    def is_shown(self) -> bool:
        return self._live is not None

    def begin(self, title: str) -> None:
        """Start at zero with another title; columns are blank until the first update."""
        steady = (c if c.rank == 1 else replace(c, text=" " * len(c.text)) for c in self._columns)
        self._title, self._share, self._columns = title, 0.0, tuple(steady)
        if self._live is None and self.console.is_terminal and not self.console.is_dumb_terminal:
            # Standard error is printed above the line if it goes to the terminal.
            self._live = Live(
                self,
                console=self.console,
                transient=True,
                redirect_stderr=sys.stderr is not None and sys.stderr.isatty(),
            )
            self._live.start()
        if self._live is not None:
            self._live.refresh()

    def update(self, share: float, columns: Sequence[Column]) -> None:
        """Show the progress, from 0 to 1, and the columns."""
        before = self._columns if len(self._columns) == len(columns) else columns
        self._share = share
        self._columns = tuple(
            replace(column, text=column.text.rjust(len(old.text)))
            for column, old in zip(columns, before, strict=True)
        )

    def close(self) -> None:
        """Erase the line and give the terminal back."""
        if self._live is not None:
            for stream in (sys.stdout, sys.stderr):  # rich's proxies may buffer an unfinished line
                with suppress(OSError, ValueError, AttributeError):  # a closed or missing stream
                    stream.flush()
            self._title = ""  # rich draws the line once more
            self._live.stop()
            self._live = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if not self._title:
            yield Segment(" ")
            return
        room = options.max_width - 1  # a text in the last column may start a new line
        title, share = self._title, self._share
        columns, bar = fit(title, self._columns, room)
        done = round(bar * share)
        full, empty = ("━", "─") if options.encoding.startswith("utf") else ("=", "-")
        gap = " " if bar else ""
        yield Segment(f"{title}{gap}"[:room])
        yield Segment(full * done, console.get_style("bar.complete"))
        yield Segment(empty * (bar - done), console.get_style("bar.back"))
        yield Segment("".join(f"  {column.text}" for column in columns))


def fit(title: str, columns: Sequence[Column], room: int) -> tuple[list[Column], int]:
    """The columns that fit, and the length of the bar; 0 means no bar."""
    ranks = sorted({BAR_RANK, *(column.rank for column in columns)})
    shown: list[Column] = []
    left = room - len(title)
    has_bar = False
    for rank in ranks:
        more = [column for column in columns if column.rank == rank]
        width = sum(len(column.text) + 2 for column in more)
        width += SHORTEST_BAR + 1 if rank == BAR_RANK else 0
        if width > left:
            break
        left -= width
        has_bar = has_bar or rank == BAR_RANK
        shown += more
    bar = min(SHORTEST_BAR + left, LONGEST_BAR) if has_bar else 0
    return [column for column in columns if column in shown], bar


@contextmanager
def counted(
    console: Console, title: str, total: int, shown: Callable[[int], str] = "{:,}".format
) -> Iterator[Callable[[int], None]]:
    """A progress line that counts up to ``total``; 0 if the total is unknown.

    Yields a function to call with the number of items just done; ``shown`` formats a count.
    """
    line, begun, done = LiveLine(console), time.perf_counter(), 0

    def advance(more: int) -> None:
        nonlocal done
        done += more
        if not total:
            line.update(0.0, [Column(shown(done), 1)])
            return
        left = (time.perf_counter() - begun) / done * (total - done)
        columns = [
            Column(f"{shown(done)} of {shown(total)}", 2),
            Column(f"{clock_time(left)} left", 1),
        ]
        line.update(done / total, columns)

    line.begin(title)
    try:
        yield advance
    finally:
        line.close()


def clock_time(seconds: float) -> str:
    """``0:07``, ``12:30`` or ``1:02:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
