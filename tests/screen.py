"""What a terminal shows of a text with escape codes."""

from __future__ import annotations

import re

# A control sequence, a line end, or a character.
PIECE = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|(.)", re.DOTALL)


class Screen:
    """The part of a terminal that a live line needs: it moves, erases, and wraps long lines."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.lines = [""]
        self.row = self.column = 0
        self.wrapped = 0
        self.shows_cursor = True

    def feed(self, text: str) -> None:
        for numbers, command, character in PIECE.findall(text):
            if command:
                self._control(command, numbers)
            elif character == "\n":
                self.column = 0  # the terminal's driver adds a carriage return
                self._go_down()
            elif character == "\r":
                self.column = 0
            else:
                self._put(character)

    @property
    def line(self) -> str:
        """The line that the cursor is in."""
        return self.lines[self.row]

    def _control(self, command: str, numbers: str) -> None:
        if command == "K":
            self.lines[self.row] = "" if numbers == "2" else self.line[: self.column]
        elif command == "A":
            self.row -= int(numbers or 1)
            assert self.row >= 0
        elif numbers == "?25":
            self.shows_cursor = command == "h"
        else:
            assert command == "m", f"{numbers}{command}"

    def _put(self, character: str) -> None:
        assert character.isprintable(), repr(character)
        if self.column == self.columns:
            self.wrapped += 1
            self.column = 0
            self._go_down()
        line = self.line.ljust(self.column)
        self.lines[self.row] = line[: self.column] + character + line[self.column + 1 :]
        self.column += 1

    def _go_down(self) -> None:
        self.row += 1
        if self.row == len(self.lines):
            self.lines.append("")
