"""The user's home folder, which may be missing or read-only, as in containers and batch systems."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from resnet_fit.errors import UserError

# What Paddle and VisualDL create in the home folder at import, and Paddle for a static graph.
PADDLE = (".cache/paddle/dataset",)
STATIC_GRAPH = (".cache/paddle/to_static_tmp",)
VISUALDL = (".visualdl/conf/config.json", ".visualdl/fastdeployserver", ".visualdl/x2paddle")


def home() -> Path | None:
    """The home folder; None if HOME is not set and the system knows none for this user."""
    folder = os.path.expanduser("~")
    return None if folder == "~" else Path(folder)


def expand(path: str | os.PathLike[str]) -> Path:
    """``path`` with a leading ``~`` or ``~user`` replaced by the home folder.

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
    """This library's cache folder, safe to delete; None for a user without a home folder."""
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"]) / "resnet-fit"
    folder = home()
    return None if folder is None else folder / ".cache" / "resnet-fit"


@contextmanager
def home_with(*paths: str) -> Iterator[None]:
    """Provide a home folder for code that fails if it cannot create ``paths`` there.

    It is the user's own if these paths exist or can be created; otherwise a temporary folder while
    the block runs.
    """
    own = home()
    if own is not None and all(_exists_or_can_be_created(own / path) for path in paths):
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


def _exists_or_can_be_created(path: Path) -> bool:
    if os.path.exists(path):
        return True
    nearest = next(parent for parent in path.parents if os.path.exists(parent))
    return os.path.isdir(nearest) and os.access(nearest, os.W_OK | os.X_OK)
