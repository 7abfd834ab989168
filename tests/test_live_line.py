"""A line that fits its terminal, and leaves nothing behind."""

from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console
from screen import Screen

from resnet_fit.live_line import LONGEST_BAR, SHORTEST_BAR, Column, LiveLine, counted, fit

TITLE = "epoch 3/30"
COLUMNS = [
    Column("123/391", 9),
    Column("loss 0.4821", 5),
    Column("top1 83.12 %", 2),
    Column("top5 99.01 %", 8),
    Column("1,234 img/s", 4),
    Column("epoch ends in 0:20", 7),
    Column("12:30 used", 10),
    Column("1:10:00 left", 1),
]
AT_80 = ["loss 0.4821", "top1 83.12 %", "1,234 img/s", "1:10:00 left"]


class Terminal:
    """A console whose output a `Screen` shows."""

    def __init__(self, columns, **options):
        self.file = io.StringIO()
        self.console = Console(
            force_terminal=True, file=self.file, width=columns, soft_wrap=True, **options
        )
        self.screen = Screen(columns)
        self.seen = 0

    def look(self):
        output = self.file.getvalue()
        self.screen.feed(output[self.seen :])
        self.seen = len(output)
        return self.screen


def text(terminal, line):
    rendered = line.__rich_console__(terminal.console, terminal.console.options)
    return "".join(segment.text for segment in rendered)


@pytest.mark.parametrize(
    ("columns", "shown", "bar"),
    [
        (200, [c.text for c in COLUMNS], LONGEST_BAR),
        (120, [c.text for c in COLUMNS if c.rank < 10], 11),
        (114, [c.text for c in COLUMNS if c.rank < 9], 14),
        (80, AT_80, 14),
        (72, AT_80, SHORTEST_BAR),
        (71, ["top1 83.12 %", "1,234 img/s", "1:10:00 left"], 18),
        (60, ["top1 83.12 %", "1,234 img/s", "1:10:00 left"], 7),
        (50, ["top1 83.12 %", "1:10:00 left"], 10),
        (40, ["top1 83.12 %", "1:10:00 left"], 0),
        (30, ["1:10:00 left"], 0),
        (12, [], 0),
    ],
)
def test_what_matters_least_is_left_out_and_the_bar_shrinks_first(columns, shown, bar):
    fitted, length = fit(TITLE, COLUMNS, columns - 1)
    assert ([column.text for column in fitted], length) == (shown, bar)


def test_it_never_needs_more_than_its_terminal_has():
    """The terminal may change its width at any time."""
    terminal = Terminal(80)
    line = LiveLine(terminal.console)
    line.begin(TITLE)
    line.update(0.4, COLUMNS)
    for columns in range(5, 220):
        terminal.console.width = columns
        assert len(text(terminal, line)) < columns
    line.close()


def test_the_bar_is_as_long_as_what_is_done():
    terminal = Terminal(80)
    line = LiveLine(terminal.console)
    lengths = []
    for share in (0.0, 0.5, 1.0):
        line.begin(TITLE)
        line.update(share, COLUMNS)
        lengths.append((text(terminal, line).count("━"), text(terminal, line).count("─")))
    line.close()
    assert lengths == [(0, 14), (7, 7), (14, 0)]


def test_columns_stay_where_they_are():
    """A shorter number, and one that is not known yet, take the room of the longest."""
    terminal = Terminal(120)
    line = LiveLine(terminal.console)
    line.begin(TITLE)
    line.update(0.5, COLUMNS)
    before = text(terminal, line)
    line.update(0.5, [*COLUMNS[:4], Column("9 img/s", 4), *COLUMNS[5:]])
    assert text(terminal, line) == before.replace("1,234", "    9")
    line.begin("epoch 4/30")
    after = text(terminal, line)
    assert len(after) == len(before)
    assert after.endswith(" " * 20 + "1:10:00 left"), "the time that is left goes on"
    line.close()


def test_ascii_where_the_terminal_has_no_other_characters():
    terminal = Terminal(80)
    line = LiveLine(terminal.console)
    line.begin(TITLE)
    line.update(0.5, COLUMNS)
    options = terminal.console.options
    options.encoding = "ascii"
    rendered = "".join(s.text for s in line.__rich_console__(terminal.console, options))
    assert rendered.isascii()
    assert "=======-------" in rendered
    line.close()


def test_what_is_printed_meanwhile_stands_above_it_and_nothing_is_left_of_it(monkeypatch):
    terminal = Terminal(80)
    monkeypatch.setattr(sys, "stdout", terminal.file)
    stderr = io.StringIO()
    monkeypatch.setattr(stderr, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", stderr)
    line = LiveLine(terminal.console)
    line.begin(TITLE)
    for i in range(20):
        line.update(i / 20, COLUMNS)
        print(f"printed {i} [b]and[/b] {'long ' * 19}word")
        print(f"warned {i}", file=sys.stderr)
    print("half a line", end="")
    screen = terminal.look()
    assert screen.line.startswith(TITLE)
    assert not screen.shows_cursor
    line.close()
    screen = terminal.look()
    assert screen.shows_cursor
    shown = "".join(part.ljust(80) if len(part) == 80 else f"{part}\n" for part in screen.lines)
    expected = [f"printed {i} [b]and[/b] {'long ' * 19}word\nwarned {i}" for i in range(20)]
    assert shown.rstrip("\n") == "\n".join([*expected, "half a line"])
    assert (screen.line, screen.column) == ("", 0)


def test_errors_stay_apart_where_they_go_to_a_file(monkeypatch):
    terminal, stderr = Terminal(80), io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    line = LiveLine(terminal.console)
    line.begin(TITLE)
    print("warned", file=sys.stderr)
    line.close()
    assert stderr.getvalue() == "warned\n"
    assert "warned" not in terminal.file.getvalue()


@pytest.mark.parametrize("options", [{"no_color": True}, {"color_system": None}])
def test_without_colours_the_bar_can_be_read(options):
    terminal = Terminal(80, **options)
    line = LiveLine(terminal.console)
    line.begin(TITLE)
    line.update(0.5, COLUMNS)
    assert "━━━━━━━───────" in text(terminal, line)
    line.close()
    assert "\x1b[3" not in terminal.file.getvalue()


def test_none_where_the_terminal_cannot_move_its_cursor():
    file = io.StringIO()
    console = Console(force_terminal=True, file=file, width=80, _environ={"TERM": "dumb"})
    line = LiveLine(console)
    line.begin(TITLE)
    line.update(0.5, COLUMNS)
    line.close()
    assert not line.is_shown
    assert file.getvalue() == ""


def noted_updates(monkeypatch, terminal):
    """The share of each update, and the line after it."""
    states = []
    update = LiveLine.update

    def noted(self, share, columns):
        update(self, share, columns)
        states.append((share, text(terminal, self)))

    monkeypatch.setattr(LiveLine, "update", noted)
    return states


def test_what_is_counted_shows_how_much_is_done_and_left(monkeypatch):
    seconds = iter([0.0, 10.0, 30.0])
    monkeypatch.setattr("resnet_fit.live_line.time.perf_counter", lambda: next(seconds))
    terminal = Terminal(80)
    states = noted_updates(monkeypatch, terminal)
    with counted(terminal.console, "photos", 4000) as advance:
        advance(1000)
        advance(2000)
    (first, first_line), (second, second_line) = states
    assert (first, second) == (0.25, 0.75)
    assert first_line.startswith("photos ")
    assert first_line.endswith("  1,000 of 4,000  0:30 left")
    assert second_line.endswith("  3,000 of 4,000  0:10 left")
    assert terminal.look().line == ""


def test_what_is_counted_without_a_known_end_shows_how_much_is_done(monkeypatch):
    terminal = Terminal(80)
    states = noted_updates(monkeypatch, terminal)
    with counted(terminal.console, "archive", 0) as advance:
        assert terminal.look().line.startswith("archive ")
        advance(5_000_000)
    ((share, line),) = states
    assert share == 0
    assert line.startswith("archive ")
    assert line.endswith("  5,000,000")
    assert terminal.look().line == ""
