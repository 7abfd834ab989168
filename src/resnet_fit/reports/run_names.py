"""Runs as VisualDL's server sees them: by short names, and whole records only."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from resnet_fit.files import readable

# The folder of a run that its records are in: no part of a name.
RECORDS = "visualdl"
# What VisualDL knows files by: records, networks, profiles.
SHOWN = ("vdlrecords", "vdlgraph", "pdmodel", "paddle_trace")

Walk = Iterator[tuple[str, list[str], list[str]]]


class Runs:
    """The file system that VisualDL reads, with folders of records under short names.

    ``runs/first-try/visualdl/train`` is ``first-try/train`` there. VisualDL itself would name runs
    by their whole paths, and its page of embeddings fails for those that are absolute.

    A record that is still being written, or was cut off when its process was killed, is not handed
    out: VisualDL would fail for all runs from then on.

    Args:
        folders: of runs, or with runs below them.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = [folder.absolute() for folder in folders]
        self._top = Path(os.path.commonpath(self._folders))
        if (self._top / RECORDS).is_dir():  # a run itself
            self._top = self._top.parent
        self._paths: dict[str, str] = {}
        self._whole: dict[str, int] = {}

    def walk(self, folder: str) -> Walk:
        """The folders that hold something to show, by short names, whatever is asked for."""
        for top in self._folders:
            for path, folders, files in os.walk(top, followlinks=True):
                # Hidden ones are written at the moment, or kept until that is done.
                folders[:] = sorted(name for name in folders if not name.startswith("."))
                shown = [file for file in files if any(mark in file for mark in SHOWN)]
                if shown:
                    yield self._name(path), [], shown

    def path(self, name: str) -> str:
        """The real path of a folder or file that `walk` has told of."""
        if name in self._paths:
            return self._paths[name]
        folder, _, file = name.rpartition("/")
        return os.path.join(self._paths.get(folder, folder), file)

    def exists(self, name: str) -> bool:
        return os.path.exists(self.path(name))

    def isfile(self, name: str) -> bool:
        return os.path.isfile(self.path(name))

    @staticmethod
    def join(name: str, *names: str) -> str:
        return os.path.join(name, *names)

    def read(
        self,
        name: str,
        binary_mode: bool = False,
        size: int | None = None,
        continue_from: dict[str, int] | None = None,
    ) -> tuple[Any, dict[str, int]]:
        """Up to ``size`` bytes from where an earlier call ended, and where this one ends."""
        path, start = self.path(name), (continue_from or {}).get("last_offset", 0)
        end = self._end(path) if "vdlrecords" in name else os.path.getsize(path)
        count = max(0, end - start)
        with open(path, "rb") as file:
            file.seek(start)
            content = file.read(count if size is None else min(size, count))
        text = content if binary_mode else content.decode()
        return text, {"last_offset": start + len(content)}

    def read_file(self, name: str, binary_mode: bool = True) -> Any:
        return self.read(name, binary_mode)[0]

    def _name(self, path: str) -> str:
        parts = list(Path(path).relative_to(self._top).parts)
        short = [part for part in parts if part != RECORDS] or [self._top.name]
        for names in (short, parts):
            name = readable("/".join(names))
            if self._paths.setdefault(name, path) == path:
                break
        return name

    def _end(self, path: str) -> int:
        """The bytes of a record file that are whole records: each has its length in front."""
        size = os.path.getsize(path)
        end = self._whole.get(path, 0)
        if end > size:  # a run that went on from an earlier checkpoint
            end = 0
        with open(path, "rb") as file:
            while True:
                file.seek(end)
                header = file.read(8)
                following = end + 8 + struct.unpack("<Q", header)[0] if len(header) == 8 else None
                if following is None or following > size:
                    break
                end = following
        self._whole[path] = end
        return end
