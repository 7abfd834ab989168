"""Atomic writes, checksums, locks, and file names as printable text."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import IO, Any

from resnet_fit.errors import UserError, suggest

try:
    import fcntl
except ImportError:  # Windows has no such locks; runs there are not locked
    fcntl = None  # type: ignore[assignment]

# What `flock` answers on a file system that has no locks.
WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


def readable(text: str) -> str:
    """Text that contains file names, escaped so that it is one printable line.

    Bytes that are not UTF-8, which Python keeps as surrogates, become ``\\xff``; line breaks and
    other control characters become ``\\n`` etc.
    """

    def shown(character: str) -> str:
        if "\udc80" <= character <= "\udcff":
            return f"\\x{ord(character) - 0xDC00:02x}"
        printable = character.isprintable()
        return character if printable else character.encode("unicode_escape").decode()

    return text if text.isprintable() else "".join(map(shown, text))


def require_existing(path: Path) -> None:
    """Raise UserError with the nearest name if ``path`` does not exist."""
    if path.exists():
        return
    nearest = next((p for p in path.parents if p.exists()), Path("/"))
    wanted = path.relative_to(nearest).parts[0] if nearest in path.parents else path.name
    names = sorted(p.name for p in nearest.iterdir()) if nearest.is_dir() else []
    raise UserError(f"{path}: no such file or folder.{suggest(wanted, names)}")


def write_text(file: Path, text: str) -> None:
    """Replace a file's content atomically, by a temporary file beside it."""
    write(file, lambda part: part.write_text(text, encoding="utf-8"))


def write_json(file: Path, value: Any) -> None:
    """Write a value as JSON, atomically."""
    write_text(file, json_text(value))


def json_text(value: Any, indent: int | None = 2, is_strict: bool = True) -> str:
    """A value as JSON text in UTF-8, with null for NaN and infinity, which JSON does not have.

    Bytes of file names that are not UTF-8 are written as JSON escapes, and are restored when the
    text is read again.

    Args:
        value: of lists, dictionaries, texts and numbers.
        indent: spaces of a level; None for one line.
        is_strict: false keeps NaN and infinity, in the form that Python's `json` reads back.
    """
    value = finite(value) if is_strict else value
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=not is_strict) + "\n"
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def finite(value: Any) -> Any:
    """A copy of nested lists and dictionaries with None for each NaN or infinite number."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = (finite(item) for item in value)
        return list(items) if isinstance(value, list) else tuple(items)
    return value


def write(file: Path, produce: Callable[[Path], object]) -> None:
    """Let ``produce`` write a temporary file beside ``file``, then replace ``file`` by it."""
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
    """Add the file name to an OSError from the block; that of a full disk has none."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(file)
        raise


_writes: ContextVar[bool] = ContextVar("writes", default=True)


@contextmanager
def no_new_files() -> Iterator[None]:
    """In the block, write no decoded images and no downloads to disk."""
    before = _writes.set(False)
    try:
        yield
    finally:
        _writes.reset(before)


def may_write() -> bool:
    """Whether caches and downloads may be written; see `no_new_files`."""
    return _writes.get()


def beside(folder: Path, what: str) -> Path:
    """The hidden folder ``.NAME.what`` beside a folder.

    ``part`` while it is being written, ``previous`` for the one it replaces.
    """
    return folder.with_name(f".{folder.name}.{what}")


def replaced_in(place: Path) -> list[str]:
    """The names of the folders in ``place`` that `replacing` writes, in order.

    Also those that are there only as ``previous``: where `replacing` is killed after it moved the
    old folder away, nothing else is left.
    """
    folders = [p.name for p in place.iterdir() if p.is_dir()]
    visible = {name for name in folders if not name.startswith(".")}
    previous = {found[1] for name in folders if (found := re.fullmatch(r"\.(.+)\.previous", name))}
    return sorted(visible | previous)


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``folder``, which takes its place after the block.

    What stood there is `beside` as ``previous`` then. At every moment one of the two is whole, also
    after an OSError, which is raised.
    """
    part, previous = beside(folder, "part"), beside(folder, "previous")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        yield part
        if folder.exists():
            shutil.rmtree(previous, ignore_errors=True)
            os.replace(folder, previous)
        os.replace(part, folder)
    except OSError:
        if previous.exists() and not folder.exists():
            with suppress(OSError):
                os.replace(previous, folder)
        raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def sync(file: Path) -> None:
    """Wait until a file's content is on disk, so that a power cut cannot lose it."""
    with open(file, "rb+") as stream:
        os.fsync(stream.fileno())


def digest_of(file: Path, algorithm: str) -> str:
    """The checksum of a file's content, in hexadecimal.

    Args:
        algorithm: as `hashlib` names it, such as ``sha256``.
    """
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with open(file, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def lock(folder: Path, wait: Callable[[], object] | None = None) -> Iterator[None]:
    """Lock a folder against other processes of this library while the block runs.

    If another process has the lock, ``wait`` is called, and the lock is awaited. On a file system
    without locks, as of some clusters, a warning says that nothing is locked.

    Raises:
        UserError: another process has the lock, and ``wait`` is None.
    """
    with open(folder / ".lock", "a", encoding="utf-8") as file:
        if not _locked(file):
            if wait is None:
                raise UserError(f"{folder}: another process is training in this folder")
            wait()
            _locked(file, at_once=False)
        yield


def is_locked(folder: Path) -> bool:
    """Whether a process holds the `lock` of a folder. Writes nothing.

    The check takes a shared lock for some microseconds, so that several checks do not collide.
    """
    if fcntl is None:
        return False
    try:
        with open(folder / ".lock", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no run was trained there, or no permission
        return False
    return False


def _locked(file: IO[str], at_once: bool = True) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (fcntl.LOCK_NB if at_once else 0))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            error.filename = file.name
            raise
        warnings.warn(
            f"{file.name}: this file system has no locks ({error.strerror}): start no second "
            "process in this folder",
            stacklevel=4,
        )
    return True
