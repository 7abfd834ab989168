"""Lists the images of a folder of class folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from resnet_fit.errors import UserError

# What every build and version of Pillow decodes.
EXTENSIONS = frozenset(
    {"png", "bmp", "gif", "webp", "tif", "tiff"}
    | {"jpg", "jpeg", "jpe", "jfif"}
    | {"ppm", "pgm", "pbm", "pnm"}
)
_EXTENSIONS = frozenset(e.encode() for e in EXTENSIONS)

# Kinds of entries. Any other kind is a file extension with its dot; such files are left out.
FOLDER = "folder"
IMAGE = "image"
BESIDE_CLASSES = "images beside the class folders"
WITHOUT_EXTENSION = "without extension"
LOST_LINKS = "links that cannot be followed"

# Device and inode of a folder, which do not depend on the links that lead to it.
Identity = tuple[int, int]
# A path below the root, and its kind.
Entry = tuple[bytes, str]


class LeftOut(NamedTuple):
    """Files of one kind that are left out: their number, and the path of one below the root."""

    files: int
    example: str


class Listing(NamedTuple):
    """The images of one folder, sorted by class and name.

    ``counts`` is the number of images of each class; ``left_out`` has the other files by kind.
    """

    paths: list[str]
    classes: tuple[str, ...]
    counts: list[int]
    left_out: dict[str, LeftOut]


def list_images(root: Path) -> Listing:
    """List a folder of class folders.

    Folders inside a class folder belong to it; links are followed, except in cycles; hidden files
    and unknown extensions are left out. An unreadable folder, and a broken link with the extension
    of an image, are listed as files, so that the decoder reports them. Raises UserError if ``root``
    itself cannot be read.
    """
    try:
        return _Walk(os.path.join(os.fsencode(root), b"")).listing()
    except OSError as error:
        raise UserError(f"{root}: cannot be read ({error.strerror})") from None


def images_below(root: str | os.PathLike[str]) -> Iterator[str]:
    """All image files in a folder and its subfolders, each folder sorted by name.

    Follows the rules of `list_images`.
    """
    walk = _Walk(os.path.join(os.fsencode(root), b""))
    for path in walk.images(b""):
        yield os.fsdecode(walk.root + path)


@dataclass
class _Walk:
    """Walks through the class folders of ``root`` and records what it leaves out.

    Names are bytes, as in the file system, and sorted as bytes. ``root`` ends in a separator.
    """

    root: bytes
    left_out: dict[str, LeftOut] = field(default_factory=dict)

    def listing(self) -> Listing:
        """List all images. Raises OSError if the root cannot be read."""
        paths: list[str] = []
        counts: dict[str, int] = {}
        for name, kind in self._look_into(b""):
            if kind == FOLDER:
                images = [os.fsdecode(self.root + image) for image in self.images(name)]
                counts[os.fsdecode(name)] = len(images)
                paths += images
            elif kind in (IMAGE, LOST_LINKS):
                self._leave_out(BESIDE_CLASSES if kind == IMAGE else kind, name)
        return Listing(paths, tuple(counts), list(counts.values()), self.left_out)

    def images(self, top: bytes) -> Iterator[bytes]:
        """Each image in a class folder and below it, and each folder that cannot be read.

        Without recursion, since folders may be nested deeper than Python's recursion limit.
        """
        above = self._identity(b"") if top else (-1, -1)
        stack: list[tuple[Identity, Iterator[Entry]]] = [(above, iter([(top, FOLDER)]))]
        while stack:
            path, kind = next(stack[-1][1], (b"", None))
            if kind is None:
                stack.pop()
            elif kind == IMAGE:
                yield path
            elif kind != FOLDER:
                self._leave_out(kind, path)
            else:
                try:
                    identity, entries = self._identity(path), self._look_into(path)
                except OSError:
                    yield path
                    continue
                # A link to a parent folder would be a cycle.
                if identity not in (above for above, _ in stack):
                    stack.append((identity, iter(entries)))

    def _look_into(self, folder: bytes) -> list[Entry]:
        """Entries of a folder that are not hidden, sorted by name."""
        prefix = folder and os.path.join(folder, b"")
        with os.scandir(self.root + folder) as entries:
            shown = (entry for entry in entries if not entry.name.startswith(b"."))
            return sorted((prefix + entry.name, _kind(entry)) for entry in shown)

    def _identity(self, folder: bytes) -> Identity:
        status = os.stat(self.root + folder)
        return status.st_dev, status.st_ino

    def _leave_out(self, kind: str, path: bytes) -> None:
        files, example = self.left_out.get(kind, (0, os.fsdecode(path)))
        self.left_out[kind] = LeftOut(files + 1, example)


def _kind(entry: os.DirEntry[bytes]) -> str:
    try:
        if entry.is_dir():
            return FOLDER
    except OSError:  # a link in a cycle, or into a folder without permission
        pass
    stem, _, extension = entry.name.rpartition(b".")
    if stem and extension.lower() in _EXTENSIONS:
        return IMAGE
    if entry.is_symlink() and not os.path.exists(entry.path):
        return LOST_LINKS
    named = stem and extension
    return os.fsdecode(b"." + extension.lower()) if named else WITHOUT_EXTENSION
