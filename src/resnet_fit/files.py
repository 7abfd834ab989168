"""Files that are whole or not there."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import IO, Any

from resnet_fit.errors import UserError, suggest

try:
    import fcntl
except ImportError:  # Windows has no such locks, and runs there go without
    fcntl = None  # type: ignore[assignment]


def readable(text: str) -> str:
    """Text with names of files in it, as one line that can be printed and written anywhere.

    Bytes of a name that are not UTF-8, which Python keeps as surrogates, are written as ``\\xff``,
    line breaks and other control characters as ``\\n`` etc.
    """

    def shown(character: str) -> str:
        if "\udc80" <= character <= "\udcff":
            return f"\\x{ord(character) - 0xDC00:02x}"
        printable = character.isprintable()
        return character if printable else character.encode("unicode_escape").decode()

    return text if text.isprintable() else "".join(map(shown, text))


def require_existing(path: Path) -> None:
    """Raise a UserError that suggests the nearest name, if there is nothing at ``path``."""
    if path.exists():
        return
    nearest = next((p for p in path.parents if p.exists()), Path("/"))
    wanted = path.relative_to(nearest).parts[0] if nearest in path.parents else path.name
    names = sorted(p.name for p in nearest.iterdir()) if nearest.is_dir() else []
    raise UserError(f"{path}: no such file or folder.{suggest(wanted, names)}")


def write_text(file: Path, text: str) -> None:
    """Replace a file's content in one step, through a temporary file beside it."""
    write(file, lambda part: part.write_text(text, encoding="utf-8"))


def write_json(file: Path, value: Any) -> None:
    """Write a value as JSON text, whole or not at all."""
    write_text(file, json_text(value))


def json_text(value: Any, indent: int | None = 2) -> str:
    """A value as JSON text in UTF-8, with null for NaN and infinity, which JSON does not have.

    Names of files may hold bytes that are no text; they are written as JSON's escapes, and are the
    same when they are read again.
    """
    text = json.dumps(finite(value), indent=indent, ensure_ascii=False, allow_nan=False) + "\n"
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def finite(value: Any) -> Any:
    """A value of lists and dictionaries, with None for each number that is NaN or infinite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = (finite(item) for item in value)
        return list(items) if isinstance(value, list) else tuple(items)
    return value


def write(file: Path, produce: Callable[[Path], object]) -> None:
    """Let ``produce`` write a temporary file beside ``file``, then put it in its place."""
    part = file.with_name(f".{file.name}.part{os.getpid()}")
    try:
        with naming(file):
            produce(part)
            sync(part)
            os.replace(part, file)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def naming(file: Path) -> Iterator[None]:
    """Let an OSError from within say which file it is about: that of a full disk does not."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(file)
        raise


_writes: ContextVar[bool] = ContextVar("writes", default=True)


@contextmanager
def no_new_files() -> Iterator[None]:
    """Keep nothing on the disk meanwhile: no decoded images and no downloads."""
    before = _writes.set(False)
    try:
        yield
    finally:
        _writes.reset(before)


def may_write() -> bool:
    """Whether files may be kept for later; see `no_new_files`."""
    return _writes.get()


def sync(file: Path) -> None:
    """Wait until a file's content is on the disk, so that a power cut cannot empty it."""
    with open(file, "rb+") as stream:
        os.fsync(stream.fileno())


@contextmanager
def lock(folder: Path, wait: Callable[[], object] | None = None) -> Iterator[None]:
    """Keep other processes of this library out of a folder, as long as this one is in it.

    Where another one is, ``wait`` is called and its end awaited.

    Raises:
        UserError: another process is in it, and there is no ``wait``.
    """
    with open(folder / ".lock", "a", encoding="utf-8") as file:
        if not _locked(file):
            if wait is None:
                raise UserError(f"{folder}: another process is training in this folder")
            wait()
            _locked(file, at_once=False)
        yield


def is_locked(folder: Path) -> bool:
    """Whether a process is in the `lock` of a folder; nothing is written to find out.

    The lock is shared and held for some microseconds only, so that many may ask at once.
    """
    if fcntl is None:
        return False
    try:
        with open(folder / ".lock", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no run was ever trained there, or it is not ours to read
        return False
    return False


def _locked(file: IO[str], at_once: bool = True) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (fcntl.LOCK_NB if at_once else 0))
    except BlockingIOError:
        return False
    return True
