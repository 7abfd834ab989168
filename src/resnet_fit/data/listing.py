"""What is in a folder of class folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from resnet_fit.errors import UserError

# What Pillow decodes by itself, whatever its version and however it was built.
EXTENSIONS = frozenset(
    {"png", "bmp", "gif", "webp", "tif", "tiff"}
    | {"jpg", "jpeg", "jpe", "jfif"}
    | {"ppm", "pgm", "pbm", "pnm"}
)
_EXTENSIONS = frozenset(e.encode() for e in EXTENSIONS)

# Kinds of what is in a folder. Another one is an extension, with its dot: those are left out.
FOLDER = "folder"
IMAGE = "image"
BESIDE_CLASSES = "images beside the class folders"
WITHOUT_EXTENSION = "without extension"
LOST_LINKS = "links that cannot be followed"

# Device and number of a folder: the same by whatever links it was reached.
Identity = tuple[int, int]
# A path below the root, and its kind.
Entry = tuple[bytes, str]


class LeftOut(NamedTuple):
    """How many files of one kind are left out, and one of them, by its path below the root."""

    files: int
    example: str


class Listing(NamedTuple):
    """The images of one folder, sorted by class and name.

    ``counts`` says how many of ``paths`` each of ``classes`` has; ``left_out`` what else is there,
    by its kind.
    """

    paths: list[str]
    classes: tuple[str, ...]
    counts: list[int]
    left_out: dict[str, LeftOut]


def list_images(root: Path) -> Listing:
    """List a folder of class folders.

    Folders inside a class folder belong to it; links are followed, but not round; hidden names and
    unknown extensions are left out. A folder that cannot be read, and a lost link with an image's
    extension, are listed as files, so that the decoder names them. Raises UserError if ``root``
    itself cannot be read.
    """
    try:
        return _Walk(os.path.join(os.fsencode(root), b"")).listing()
    except OSError as error:
        raise UserError(f"{root}: cannot be read ({error.strerror})") from None


def images_below(root: str | os.PathLike[str]) -> Iterator[str]:
    """Every image file in a folder and the folders below it, sorted by name in each.

    By the rules of `list_images`.
    """
    walk = _Walk(os.path.join(os.fsencode(root), b""))
    for path in walk.images(b""):
        yield os.fsdecode(walk.root + path)


@dataclass
class _Walk:
    """A walk through the class folders of ``root``, and what it left out.

    Names are bytes, as the file system has them, and sorted as such. ``root`` ends in a separator.
    """

    root: bytes
    left_out: dict[str, LeftOut] = field(default_factory=dict)

    def listing(self) -> Listing:
        """List all of it. Raises OSError if the root cannot be read."""
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
        """Each image in a class folder and below it; what cannot be read as a folder is one, too.

        Not by recursion: folders may be nested more deeply than Python's calls.
        """
        above = self._identity(b"") if top else (-1, -1)
        way: list[tuple[Identity, Iterator[Entry]]] = [(above, iter([(top, FOLDER)]))]
        while way:
            path, kind = next(way[-1][1], (b"", None))
            if kind is None:
                way.pop()
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
                # A link to a folder on the way here would lead round for ever.
                if identity not in (above for above, _ in way):
                    way.append((identity, iter(entries)))

    def _look_into(self, folder: bytes) -> list[Entry]:
        """What is visible in a folder, sorted by name."""
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
    except OSError:  # a link that leads round, or through a folder that is closed
        pass
    stem, _, extension = entry.name.rpartition(b".")
    if stem and extension.lower() in _EXTENSIONS:
        return IMAGE
    if entry.is_symlink() and not os.path.exists(entry.path):
        return LOST_LINKS
    named = stem and extension
    return os.fsdecode(b"." + extension.lower()) if named else WITHOUT_EXTENSION
