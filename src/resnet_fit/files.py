"""Files that are whole or not there."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from resnet_fit.errors import UserError

try:
    import fcntl
except ImportError:  # Windows has no such locks, and runs there go without
    fcntl = None  # type: ignore[assignment]


def write_text(file: Path, text: str) -> None:
    """Replace a file's content in one step, through a temporary file beside it."""
    write(file, lambda part: part.write_text(text, encoding="utf-8"))


def write_json(file: Path, value: Any) -> None:
    """Write a value as JSON text, whole or not at all."""
    write_text(file, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write(file: Path, produce: Callable[[Path], object]) -> None:
    """Let ``produce`` write a temporary file beside ``file``, then put it in its place."""
    part = file.with_name(f".{file.name}.part{os.getpid()}")
    try:
        produce(part)
        sync(part)
        os.replace(part, file)
    finally:
        part.unlink(missing_ok=True)


def sync(file: Path) -> None:
    """Wait until a file's content is on the disk, so that a power cut cannot empty it."""
    with open(file, "rb+") as stream:
        os.fsync(stream.fileno())


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Keep other processes of this library out of a run's folder, as long as this one lives.

    Raises:
        UserError: another process is in it.
    """
    with open(folder / ".lock", "a", encoding="utf-8") as file:
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"{folder}: another process is training in this folder") from None
        yield
