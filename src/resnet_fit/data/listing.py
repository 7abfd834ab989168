"""What is in a folder of class folders, listed once and known again by the folders' times.

A file that comes or goes changes the time of the folder it is in, so a listing holds as long as no
folder's times have changed. Where that is not certain, nothing is kept:

- a folder that changed shortly before it was listed may change again within one tick of the clock;
- what a link to a file points at may become a folder, and no time says so;
- file systems mounted by FUSE, object stores for instance, need not keep such times.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from resnet_fit.data.paths import Paths, bounds_of
from resnet_fit.files import may_write, write
from resnet_fit.home import user_cache

EXTENSIONS = frozenset({"jpg", "jpeg", "png", "bmp", "gif", "webp", "tif", "tiff", "ppm"})
_EXTENSIONS = frozenset(e.encode() for e in EXTENSIONS)
# A listing kept by other rules does not count. The number is that of the file's format.
_RULES = b" ".join([b"1", *sorted(_EXTENSIONS)])

# A listing that took less is not worth a file.
SLOW_SECONDS = 1.0
# How long ago the last change must be: clocks of file servers differ, and some tick every 2 s.
SETTLED_SECONDS = 60.0

# Device, number, and times (ns) of the last change to a folder's content, and to the folder at all,
# which nobody can set back.
Stamp = tuple[int, int, int, int]
Identity = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Listing:
    """The images of one folder, sorted by class and name.

    ``counts`` says how many of ``paths`` each of ``classes`` has; ``loose`` how many images lie
    beside the class folders.
    """

    paths: Paths
    classes: tuple[str, ...]
    counts: np.ndarray
    loose: int


def list_images(root: Path) -> Listing:
    """List a folder of class folders.

    Folders inside a class folder belong to it; links are followed, but not round; hidden names and
    unknown extensions are left out. What took long to list is kept in the user's cache folder.
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
    listing = walk.listing()
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
    links_to_files: bool = False

    def listing(self) -> Listing:
        """List all of it."""
        classes, loose = [], 0
        blocks: list[bytes] = []
        lengths: list[np.ndarray] = []
        for name, is_folder in self._entries(b""):
            if not is_folder:
                loose += _is_image(name)
                continue
            found: list[bytes] = []
            self._collect(name, found, frozenset())
            classes.append(os.fsdecode(name))
            blocks.append(b"".join(found))
            lengths.append(np.fromiter(map(len, found), np.int64, len(found)))
        bounds = bounds_of(np.concatenate([np.zeros(0, np.int64), *lengths]))
        paths = Paths(os.fsdecode(self.root), b"".join(blocks), bounds)
        counts = np.array([len(part) for part in lengths], np.int64)
        return Listing(paths, tuple(classes), counts, loose)

    def can_be_kept(self, begun: float) -> bool:
        """Whether the folders' times will tell of every change since the walk had ``begun``."""
        latest = max(max(stamp[2:]) for stamp in self.stamps) / 1e9
        settled = latest < begun - SETTLED_SECONDS
        mounted = {stamp[0] for stamp in self.stamps} & _fuse_devices()
        return settled and not self.links_to_files and not mounted

    def _collect(self, folder: bytes, found: list[bytes], above: frozenset[Identity]) -> None:
        entries = self._entries(folder, above)
        here = above | {self.stamps[-1][:2]}
        prefix = folder + os.sep.encode()
        for name, is_folder in entries:
            if is_folder:
                self._collect(prefix + name, found, here)
            elif _is_image(name):
                found.append(prefix + name)

    def _entries(
        self, folder: bytes, above: frozenset[Identity] = frozenset()
    ) -> list[tuple[bytes, bool]]:
        """Visible names in a folder below the root, sorted, and whether each is a folder.

        None of a folder that is its own way here, by a link: it would lead round for ever.
        """
        place = os.path.join(self.root, folder)
        stamp = _stamp(place)
        self.folders.append(folder)
        self.stamps.append(stamp)
        if stamp[:2] in above:
            return []
        with os.scandir(place) as entries:
            found = [(e, e.is_dir()) for e in entries if not e.name.startswith(b".")]
        self.links_to_files |= any(not is_folder and e.is_symlink() for e, is_folder in found)
        return sorted((e.name, is_folder) for e, is_folder in found)


def _stamp(folder: bytes | str) -> Stamp:
    status = os.stat(folder)
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns


def _is_image(name: bytes) -> bool:
    stem, _, extension = name.rpartition(b".")
    return bool(stem) and extension.lower() in _EXTENSIONS


def _fuse_devices() -> set[int]:
    """Devices of what is mounted by FUSE, where the system says so."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    found = set()
    for line in lines:
        mount, _, source = line.partition(" - ")
        if source.startswith("fuse"):
            major, minor = mount.split()[2].split(":")
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
            loose=np.array(listing.loose),
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
            return Listing(paths, classes, arrays["counts"], int(arrays["loose"]))
    # Damaged archives make zipfile and numpy raise almost anything; the folder is listed anew.
    except Exception:
        return None


def _packed(names: Iterable[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(name + b"\0" for name in names), np.uint8)


def _unpacked(names: np.ndarray) -> list[bytes]:
    return names.tobytes().split(b"\0")[:-1]
