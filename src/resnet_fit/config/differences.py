"""In which settings two configs differ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from resnet_fit.config.document import Path


def differences(was: Any, now: Any, path: Path = ()) -> Iterator[tuple[Path, Any, Any]]:
    """The path of each setting that differs, and its two values; None where it is not set.

    If the ``name`` of a section differs, only the name is given, since the other keys then mean
    something else. Sections without a common key are given whole.
    """
    if isinstance(was, dict) and isinstance(now, dict) and not _disjoint(was, now):
        names = ["name"] if was.get("name") != now.get("name") else was | now
        for key in names:
            yield from differences(was.get(key), now.get(key), (*path, key))
    elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        for i, pair in enumerate(zip(was, now, strict=True)):
            yield from differences(*pair, (*path, i))
    elif was != now:
        yield path, was, now


def _disjoint(was: dict[str, Any], now: dict[str, Any]) -> bool:
    return bool(was and now) and not was.keys() & now.keys()
