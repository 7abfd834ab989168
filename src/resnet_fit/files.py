"""Files that are whole or not there."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


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
