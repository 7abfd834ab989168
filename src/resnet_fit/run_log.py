"""The log of a run: its messages, each line with the time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


class RunLog:
    """Appends lines to a file, without buffering and never partly.

    Lines from before `open` and lines that could not be written are kept and written with the next.

    Args:
        complain: called once with a message if the file cannot be written; the run continues.
    """

    def __init__(self, complain: Callable[[str], object]) -> None:
        self._complain = complain
        self._waiting: list[str] = []
        self._path: Path | None = None
        self._file: int | None = None
        self._failed = False

    @property
    def is_open(self) -> bool:
        return self._file is not None

    def open(self, path: Path) -> None:
        """Open a file for appending, or create it."""
        self._path = path
        try:
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
            self._end_cut_line()
        except OSError as error:
            self._fail(error)
        self._flush()

    def write(self, text: str) -> None:
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        self._waiting += [f"{now}  {line}\n" for line in text.splitlines()]
        self._flush()

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _flush(self) -> None:
        while self._waiting and self._file is not None:
            line = self._waiting.pop(0)  # before writing: a signal handler may log during the write
            try:
                _append(self._file, line)
            except OSError as error:
                self._waiting.insert(0, line)
                self._fail(error)
                return

    def _end_cut_line(self) -> None:
        """End an incomplete last line, as a power cut may leave it."""
        assert self._file is not None
        if os.fstat(self._file).st_size:
            os.lseek(self._file, -1, os.SEEK_END)
            if os.read(self._file, 1) != b"\n":
                _append(self._file, "\n")

    def _fail(self, error: OSError) -> None:
        if not self._failed:
            self._failed = True
            self._complain(f"{self._path}: {error.strerror}; the run goes on without this log")


def _append(file: int, line: str) -> None:
    size, rest = os.fstat(file).st_size, line.encode("utf-8", "backslashreplace")
    try:
        while rest:
            rest = rest[os.write(file, rest) :]
    except OSError:
        with suppress(OSError):
            os.ftruncate(file, size)  # remove a partly written line
        raise
