"""What is in a folder of class folders, listed once and known again by the folders' times.

A file that comes or goes changes the time of the folder it is in, so a listing holds as long as no
folder's times have changed. Where that is not certain, nothing is kept:

- a folder that changed shortly before it was listed may change again within one tick of the clock;
- what a link to a file points at may become a folder, and no time says so;
- a folder that could not be read may be readable the next time;
- file systems mounted by FUSE, object stores for instance, need not keep such times.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from resnet_fit.data.paths import Paths, bounds_of
from resnet_fit.errors import UserError
from resnet_fit.files import may_write, write
from resnet_fit.home import user_cache

# What Pillow decodes by itself, whatever its version and however it was built.
EXTENSIONS = frozenset(
    {"png", "bmp", "gif", "webp", "tif", "tiff"}
    | {"jpg", "jpeg", "jpe", "jfif"}
    | {"ppm", "pgm", "pbm", "pnm"}
)
_EXTENSIONS = frozenset(e.encode() for e in EXTENSIONS)
# A listing kept by other rules does not count. The number is that of the file's format.
_RULES = b" ".join([b"2", *sorted(_EXTENSIONS)])

# A listing that took less is not worth a file.
SLOW_SECONDS = 1.0
# How long ago the last change must be: clocks of file servers differ, and some tick every 2 s.
SETTLED_SECONDS = 60.0

# Kinds of what is in a folder. Another one is an extension, with its dot: those are left out.
FOLDER = "folder"
IMAGE = "image"
BESIDE_CLASSES = "images beside the class folders"
WITHOUT_EXTENSION = "without extension"
LOST_LINKS = "links that cannot be followed"

# Device, number, and times (ns) of the last change to a folder's content, and to the folder at all,
# which nobody can set back.
Stamp = tuple[int, int, int, int]
Identity = tuple[int, int]
# A path below the root, and its kind.
Entry = tuple[bytes, str]


class LeftOut(NamedTuple):
    """How many files of one kind are left out, and one of them, by its path below the root."""

    files: int
    example: str


@dataclass(frozen=True, eq=False)
class Listing:
    """The images of one folder, sorted by class and name.

    ``counts`` says how many of ``paths`` each of ``classes`` has; ``left_out`` what else is there,
    by its kind.
    """

    paths: Paths
    classes: tuple[str, ...]
    counts: np.ndarray
    left_out: dict[str, LeftOut]


def list_images(root: Path) -> Listing:
    """List a folder of class folders.

    Folders inside a class folder belong to it; links are followed, but not round; hidden names and
    unknown extensions are left out. A folder that cannot be read, and a lost link with an image's
    extension, are listed as files, so that the decoder names them. What took long to list is kept
    in the user's cache folder. Raises UserError if ``root`` itself cannot be read.
    """
    cache = user_cache()
    if cache is None:
        return _Walk(os.fsencode(root)).listing()
    file = cache / "listings" / f"{folder_name(root)}.npz"
    kept = _read(file, root)
    if kept is not None:
        return kept
    begun, started = time.time(), time.perf_counter()
    walk = _Walk(os.fsencode(root))
    try:
        listing = walk.listing()
    except OSError as error:
        raise UserError(f"{root}: cannot be read ({error.strerror})") from None
    slow = time.perf_counter() - started > SLOW_SECONDS
    if slow and may_write() and walk.can_be_kept(begun):
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            write(file, lambda part: _save(part, walk, listing))
    return listing


def folder_name(root: str | os.PathLike[str]) -> str:
    """A name for what is kept of ``root``: readable, and another for every other folder."""
    place = os.path.realpath(root)
    digest = hashlib.blake2b(os.fsencode(place), digest_size=6).hexdigest()
    return "-".join([*(part[:40] for part in Path(place).parts[1:][-2:]), digest])


@dataclass
class _Walk:
    """A walk through the class folders of ``root``: what it found, and by which folders it came."""

    root: bytes
    folders: list[bytes] = field(default_factory=list)
    stamps: list[Stamp] = field(default_factory=list)
    left_out: dict[str, LeftOut] = field(default_factory=dict)
    certain: bool = True

    def listing(self) -> Listing:
        """List all of it. Raises OSError if the root cannot be read."""
        classes: list[str] = []
        blocks: list[bytes] = []
        lengths: list[np.ndarray] = []
        for name, kind in self._look_into(b"")[1]:
            if kind in (IMAGE, LOST_LINKS):
                self._leave_out(BESIDE_CLASSES if kind == IMAGE else kind, name)
            if kind != FOLDER:
                continue
            found = list(self._images(name))
            classes.append(os.fsdecode(name))
            blocks.append(b"".join(found))
            lengths.append(np.fromiter(map(len, found), np.int64, len(found)))
        bounds = bounds_of(np.concatenate([np.zeros(0, np.int64), *lengths]))
        paths = Paths(os.fsdecode(self.root), b"".join(blocks), bounds)
        counts = np.array([len(part) for part in lengths], np.int64)
        return Listing(paths, tuple(classes), counts, self.left_out)

    def can_be_kept(self, begun: float) -> bool:
        """Whether the folders' times will tell of every change since the walk had ``begun``."""
        latest = max(max(stamp[2:]) for stamp in self.stamps) / 1e9
        settled = latest < begun - SETTLED_SECONDS
        mounted = {stamp[0] for stamp in self.stamps} & _fuse_devices()
        return settled and self.certain and not mounted

    def _images(self, top: bytes) -> Iterator[bytes]:
        """Each image in a class folder and below it; what cannot be read as a folder is one, too.

        Not by recursion: folders may be nested more deeply than Python's calls.
        """
        root = self.stamps[0][:2]
        way: list[tuple[Identity, Iterator[Entry]]] = [(root, iter([(top, FOLDER)]))]
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
                    identity, entries = self._look_into(path)
                except OSError:
                    self.certain = False
                    yield path
                    continue
                # A link to a folder on the way here would lead round for ever.
                if identity not in (above for above, _ in way):
                    way.append((identity, iter(entries)))

    def _look_into(self, folder: bytes) -> tuple[Identity, list[Entry]]:
        """Which folder it is, and what is visible in it, sorted by name."""
        place = os.path.join(self.root, folder)
        stamp = _stamp(place)
        with os.scandir(place) as entries:
            found = [(e, _kind(e)) for e in entries if not e.name.startswith(b".")]
        self.folders.append(folder)
        self.stamps.append(stamp)
        self.certain &= not any(kind != FOLDER and e.is_symlink() for e, kind in found)
        prefix = folder and folder + os.sep.encode()
        return stamp[:2], sorted((prefix + e.name, kind) for e, kind in found)

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


def _stamp(folder: bytes | str) -> Stamp:
    status = os.stat(folder)
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns


def _fuse_devices() -> set[int]:
    """Devices of what is mounted by FUSE, where the system says so."""
    try:
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    except OSError:
        return set()
    found = set()
    for line in lines:
        mount, _, source = line.partition(b" - ")
        if source.startswith(b"fuse"):
            major, minor = mount.split()[2].split(b":")
            found.add(os.makedev(int(major), int(minor)))
    return found


# --- the kept listing -----------------------------------------------------------------


def _save(file: Path, walk: _Walk, listing: Listing) -> None:
    with open(file, "wb") as stream:
        np.savez(
            stream,
            rules=_packed([_RULES]),
            folders=_packed(walk.folders),
            stamps=_packed(b"%d %d %d %d" % stamp for stamp in walk.stamps),
            classes=_packed(map(os.fsencode, listing.classes)),
            counts=listing.counts,
            left_out=_packed(map(os.fsencode, listing.left_out)),
            left_out_counts=np.array(
                [found.files for found in listing.left_out.values()], np.int64
            ),
            examples=_packed(os.fsencode(found.example) for found in listing.left_out.values()),
            block=np.frombuffer(listing.paths.block, np.uint8),
            lengths=np.diff(listing.paths.bounds, axis=1)[:, 0],
        )


def _read(file: Path, root: Path) -> Listing | None:
    """The listing kept in a file, or None if there is none that holds."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            if _unpacked(arrays["rules"]) != [_RULES]:
                return None
            folders = [os.path.join(os.fsencode(root), f) for f in _unpacked(arrays["folders"])]
            stamps = [_stamp(folder) for folder in folders]
            if _unpacked(arrays["stamps"]) != [b"%d %d %d %d" % stamp for stamp in stamps]:
                return None
            bounds = bounds_of(arrays["lengths"])
            paths = Paths(os.fspath(root), arrays["block"].tobytes(), bounds)
            classes = tuple(map(os.fsdecode, _unpacked(arrays["classes"])))
            examples = map(os.fsdecode, _unpacked(arrays["examples"]))
            kinds = map(os.fsdecode, _unpacked(arrays["left_out"]))
            found = map(LeftOut, arrays["left_out_counts"].tolist(), examples)
            left_out = dict(zip(kinds, found, strict=True))
            return Listing(paths, classes, arrays["counts"], left_out)
    # Damaged archives make zipfile and numpy raise almost anything; the folder is listed anew.
    except Exception:
        return None


def _packed(names: Iterable[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(name + b"\0" for name in names), np.uint8)


def _unpacked(names: np.ndarray) -> list[bytes]:
    return names.tobytes().split(b"\0")[:-1]
