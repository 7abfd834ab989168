"""The user's home folder, which may be missing or read-only, as in containers and batch systems."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from resnet_fit.errors import UserError

# What Paddle and VisualDL make in the home folder when they are imported, and Paddle when it makes
# a static graph.
PADDLE = (".cache/paddle/dataset",)
STATIC_GRAPH = (".cache/paddle/to_static_tmp",)
VISUALDL = (".visualdl/conf/config.json", ".visualdl/fastdeployserver", ".visualdl/x2paddle")


def home() -> Path | None:
    """The home folder, or None for a user without: HOME is not set, and the system has no entry."""
    folder = os.path.expanduser("~")
    return None if folder == "~" else Path(folder)


def expand(path: str | os.PathLike[str]) -> Path:
    """``path`` with ``~`` and ``~user`` in front replaced by their home folders.

    Raises:
        UserError: the path begins with ``~``, and this user has no home folder.
    """
    expanded = Path(os.path.expanduser(path))
    if expanded.parts[:1] == ("~",):
        raise UserError(
            f"{path}: ~ is the home folder, and this user has none (HOME is not set); give the "
            "whole path"
        )
    return expanded


def user_cache() -> Path | None:
    """The user's cache folder of this library, safe to delete; None for a user without a home."""
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"]) / "resnet-fit"
    folder = home()
    return None if folder is None else folder / ".cache" / "resnet-fit"


@contextmanager
def home_with(*paths: str) -> Iterator[None]:
    """For code that makes ``paths`` in the home folder, or stops: a home where it can.

    That is the user's own if these are there or can be made, else a temporary folder for as long as
    the block runs.
    """
    own = home()
    if own is not None and all(_is_there_or_can_be_made(own / path) for path in paths):
        yield
        return
    before = os.environ.get("HOME")
    with tempfile.TemporaryDirectory(prefix="resnet-fit-") as folder:
        os.environ["HOME"] = folder
        try:
            yield
        finally:
            if before is None:
                del os.environ["HOME"]
            else:
                os.environ["HOME"] = before


def _is_there_or_can_be_made(path: Path) -> bool:
    if os.path.exists(path):
        return True
    nearest = next(parent for parent in path.parents if os.path.exists(parent))
    return os.path.isdir(nearest) and os.access(nearest, os.W_OK | os.X_OK)
