"""A cache of decoded images: reading pixels costs a fraction of decoding a file.

A cache is a folder with one file of pixels, image after image, and an index file, ``index.npz``.
The index gives the offset of each image by its cache key: a digest of the file's path, size and
modification time (ns). New and changed files have new keys and are decoded; entries of deleted
files stay. The modification time stands for the content, as in make, git and rsync: comparing the
content would mean reading every file, which the cache is there to avoid.

The index is replaced atomically, after its pixels were synced to disk. So a build may be stopped at
any time: the images in the index are complete, and the next build adds the rest.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import numpy as np

from resnet_fit.data.copies import Copies
from resnet_fit.data.dataset import FileDataset
from resnet_fit.data.transforms import (
    BadImage,
    Box,
    Interpolation,
    OnBadImage,
    Resize,
    Size,
    load,
    scaled,
    size_of,
)
from resnet_fit.data.workers import Team, worker_count
from resnet_fit.errors import RunFailed, UserError, require
from resnet_fit.files import lock, may_write, readable, write
from resnet_fit.home import expand, user_cache
from resnet_fit.terminal import say, training_console

# Part of the folder's name; raise it when the same file is decoded to different pixels.
FORMAT = 2
INDEX = "index.npz"
# Width and height in the index of an image that could not be decoded.
UNREADABLE = (0, 0)
# Files decoded as one task, and seconds between two writes of the index or lines of progress.
TASK_FILES = 16
NOTE_SECONDS = 60.0
# Files whose sizes are read to estimate the disk space.
SAMPLE = 200
# Threads that read sizes and times, since a file server answers slowly, and files of one task.
THREADS = 8
KEYS_AT_ONCE = 1000


def cache_images(
    dataset: FileDataset,
    shorter_side: int,
    path: str | os.PathLike[str] | None = None,
    *,
    interpolation: Interpolation = "bilinear",
    workers: int | None = None,
    on_bad_image: OnBadImage = "error",
) -> FileDataset:
    """Return the data set with decoded copies of its images, from the cache where possible.

    Copies are upright RGB, shrunk to ``shorter_side`` pixels; smaller images keep their size.
    Transforms read the copy instead of the file: `RandomResizedCrop` cuts the same share of the
    smaller image, so a small part of a large photo has fewer pixels than the file would give. A
    `Resize` to ``shorter_side`` with the same ``interpolation`` gives the same pixels as without a
    cache.

    Args:
        dataset: its images; those not in the cache yet are decoded and added.
        shorter_side: in pixels, no less than the transforms' output size.
        path: the folder for caches; ``$XDG_CACHE_HOME/resnet-fit/images`` or
            ``~/.cache/resnet-fit/images`` by default. Each image folder and shorter side has its
            own cache there. An image takes ``shorter_side * longer_side * 3`` bytes. Images of
            deleted files stay in the cache; to free the space, delete the cache.
        interpolation: by which Pillow shrinks.
        workers: worker processes that decode; see `worker_count`.
        on_bad_image: ``error`` raises for an unreadable file; ``skip`` leaves it to the loader,
            which skips it.

    Raises:
        BadImage: a file cannot be read.
        UserError: the disk is too small, or the cache cannot be written there.
        RunFailed: writing failed; the images that are in the index stay in the cache.
    """
    require(shorter_side > 0, "shorter_side", shorter_side, "1 or more pixels")
    workers = worker_count(workers)
    recipe = _Shrinking(_Shrink(shorter_side, interpolation), on_bad_image)
    how = "" if interpolation == "bilinear" else f"-{interpolation}"
    folder = _parent(path) / f"{_name(dataset.root)}-{shorter_side}px{how}-v{FORMAT}"
    keys = _keys(dataset)
    index = _Index.read(folder)
    rows = index.rows(keys, on_bad_image)
    missing = np.count_nonzero(rows < 0)
    if missing and not may_write():
        warnings.warn(
            f"{folder}: {missing:,} of {len(keys):,} images are not in data.cache yet; a run adds "
            "them first, but here they are decoded from their files each time",
            stacklevel=2,
        )
    elif missing:
        try:
            index = _fill(folder, dataset.paths, keys, recipe, workers)
        except OSError as error:
            raise RunFailed(
                f"{folder}: the image cache could not be written ({error.strerror or error}); the "
                "images that are in it stay. Another folder: data.cache.path"
            ) from error
        rows = index.rows(keys, on_bad_image)
    return replace(dataset, copies=index.copies(folder, rows))


def _parent(path: str | os.PathLike[str] | None) -> Path:
    """The folder for caches."""
    if path is not None:
        return expand(path)
    cache = user_cache()
    if cache is None:
        raise UserError(
            "data.cache.path: required here: without it the cache goes below the home folder, and "
            "this user has none (HOME is not set)"
        )
    return cache / "images"


def _name(root: str) -> str:
    """A readable and unique name for the cache of an image folder."""
    place = os.path.realpath(root)
    digest = hashlib.blake2b(os.fsencode(place), digest_size=6).hexdigest()
    return "-".join([*(part[:40] for part in Path(place).parts[1:][-2:]), digest])


@dataclass(frozen=True)
class _Shrinking:
    """Decodes and shrinks files; for a skipped file the result is the error text."""

    shrink: _Shrink
    on_bad_image: OnBadImage

    def make(self, paths: tuple[str, ...]) -> list[np.ndarray | str]:
        return [self._pixels(path) for path in paths]

    def _pixels(self, path: str) -> np.ndarray | str:
        try:
            image = load(path, [self.shrink], np.random.default_rng(0))
        except BadImage as error:
            if self.on_bad_image == "error":
                raise
            return str(error)
        return np.asarray(image)


class _Shrink(Resize):
    """`Resize` that leaves smaller images alone."""

    def plan(self, size: Size, rng: np.random.Generator) -> tuple[Box, Size]:
        smaller = scaled(size, self.size) if min(size) > self.size else size
        return (0, 0, *size), smaller


# --- the index ------------------------------------------------------------------------


@dataclass
class _Index:
    """The index of a cache: key, offset, width and height of each image in ``file``."""

    file: str = field(default_factory=lambda: f"pixels-{secrets.token_hex(4)}.bin")
    keys: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.uint64))
    places: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.int64))

    @classmethod
    def read(cls, folder: Path) -> _Index:
        """Read the index of a cache; if it is missing or damaged, an empty one of a new file."""
        # Damaged archives make zipfile and numpy raise almost any exception.
        with suppress(Exception), np.load(folder / INDEX, allow_pickle=False) as arrays:
            index = cls(str(arrays["pixels"]), arrays["keys"], arrays["places"])
            if (folder / index.file).stat().st_size >= index.end:
                return index
        return cls()

    def write(self, folder: Path) -> None:
        def produce(part: Path) -> None:
            with open(part, "wb") as stream:
                np.savez(stream, pixels=np.array(self.file), keys=self.keys, places=self.places)

        write(folder / INDEX, produce)

    @property
    def end(self) -> int:
        """The offset for the next image."""
        if not len(self.places):
            return 0
        offset, width, height = self.places[-1].tolist()
        return offset + width * height * 3

    def rows(self, keys: np.ndarray, on_bad_image: OnBadImage) -> np.ndarray:
        """The row of each key in the index; -1 for an image that is to be decoded.

        With ``on_bad_image="error"`` this includes unreadable images, so that the error is raised.
        """
        if not len(self.keys):
            return np.full(len(keys), -1)
        # Search by the first half of the key, then compare the whole key. Of several rows the last
        # one counts: an image that was unreadable for a time has two.
        order = np.argsort(self.keys[:, 0], kind="stable")
        found = np.searchsorted(self.keys[order, 0], keys[:, 0], side="right") - 1
        found = order[np.maximum(found, 0)]
        known = (self.keys[found] == keys).all(axis=1)
        if on_bad_image == "error":
            known &= ~self._unreadable[found]
        return np.where(known, found, -1)

    @property
    def _unreadable(self) -> np.ndarray:
        return (self.places[:, 1:] == UNREADABLE).all(axis=1)

    def copies(self, folder: Path, rows: np.ndarray) -> Copies:
        places = self.places.copy()
        places[self._unreadable, 0] = -1
        none = np.array([[-1, 0, 0]])
        # Row -1 selects the entry appended here, which means "no copy".
        return Copies(os.fspath(folder / self.file), np.concatenate([places, none])[rows])

    def extended(self, keys: np.ndarray, sizes: np.ndarray) -> _Index:
        """An index with more images of ``sizes`` int64 ``[N, 2]``, stored in this order."""
        lengths = 3 * sizes.prod(axis=1)
        offsets = self.end + np.cumsum(lengths) - lengths
        places = np.column_stack([offsets, sizes])
        return _Index(
            self.file, np.concatenate([self.keys, keys]), np.concatenate([self.places, places])
        )


def _keys(dataset: FileDataset) -> np.ndarray:
    """Cache keys, uint64 ``[N, 2]``: digests of path below the root, size and mtime."""

    def key(index: int) -> bytes:
        text = os.fsencode(dataset.name(index))
        with suppress(OSError):  # the decoder reports it
            status = os.stat(dataset.paths[index])
            text = b"%b\0%d\0%d" % (text, status.st_size, status.st_mtime_ns)
        return hashlib.blake2b(text, digest_size=16).digest()

    def keys(first: int) -> bytes:
        return b"".join(map(key, range(first, min(first + KEYS_AT_ONCE, len(dataset)))))

    with ThreadPoolExecutor(THREADS) as pool:
        parts = pool.map(keys, range(0, len(dataset), KEYS_AT_ONCE))
        return np.frombuffer(b"".join(parts), np.uint64).reshape(-1, 2)


# --- building -------------------------------------------------------------------------


def _fill(
    folder: Path, paths: Sequence[str], keys: np.ndarray, recipe: _Shrinking, workers: int
) -> _Index:
    """Decode the images that are not in the cache and add them."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be made ({error.strerror}); see data.cache.path"
        ) from None
    with lock(folder, wait=lambda: say(f"{folder}: waits for another process that writes to it")):
        index = _Index.read(folder)
        missing = np.flatnonzero(index.rows(keys, recipe.on_bad_image) < 0)
        if not len(missing):  # another process has added them
            return index
        paths, keys = [paths[i] for i in missing.tolist()], keys[missing]
        _remove_leftovers(folder, index)
        needed = _require_space(folder, paths, recipe.shrink)
        say(
            f"{folder}: decodes {len(paths):,} images (new or changed), about "
            f"{needed / 1e6:,.0f} MB; {len(index.keys):,} are in the cache already"
        )
        tasks = (tuple(paths[i : i + TASK_FILES]) for i in range(0, len(paths), TASK_FILES))
        with (
            Team().make_all(recipe, tasks, min(workers, -(-len(paths) // TASK_FILES))) as made,
            _progress(folder.name, len(paths)) as advance,
            _Writer(folder, index) as writer,
        ):
            for key, pixels in zip(keys, chain.from_iterable(made), strict=True):
                if isinstance(pixels, str):
                    writer.note_unreadable(key)
                else:
                    writer.add(key, pixels)
                advance()
    return writer.index


class _Writer:
    """Appends pixels to the cache, and writes the index every minute and at the end."""

    def __init__(self, folder: Path, index: _Index) -> None:
        self.folder, self.index = folder, index
        self._added: list[tuple[np.ndarray, Size]] = []
        self._written_at = time.monotonic()

    def __enter__(self) -> _Writer:
        self._file = open(self.folder / self.index.file, "ab")
        self._file.truncate(self.index.end)  # drop pixels that never came into the index
        return self

    def __exit__(self, *_: object) -> None:
        with self._file:
            self._write_index()

    def add(self, key: np.ndarray, pixels: np.ndarray) -> None:
        self._file.write(np.ascontiguousarray(pixels).data)
        self._added.append((key, (pixels.shape[1], pixels.shape[0])))
        if time.monotonic() - self._written_at > NOTE_SECONDS:
            self._write_index()

    def note_unreadable(self, key: np.ndarray) -> None:
        """The image gets no copy, and is not decoded again until its file changes."""
        self._added.append((key, UNREADABLE))

    def _write_index(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        if self._added:
            keys, sizes = zip(*self._added, strict=True)
            index = self.index.extended(np.array(keys), np.array(sizes, np.int64))
            index.write(self.folder)
            # Only now, and in this order: an interruption must not add these images twice.
            self._added = []
            self.index = index
        self._written_at = time.monotonic()


def _remove_leftovers(folder: Path, index: _Index) -> None:
    """Remove pixel files without an index, and temporary files of a killed process."""
    for file in (*folder.glob("pixels-*.bin"), *folder.glob(".*.part*")):
        if file.name != index.file:
            file.unlink()


def _require_space(folder: Path, paths: Sequence[str], shrink: _Shrink) -> float:
    """Estimate the bytes of the images from a sample.

    Raises UserError if less is free on the disk.
    """
    rng = np.random.default_rng(0)
    sizes = []
    for path in paths[:: -(-len(paths) // SAMPLE)]:
        with suppress(BadImage):
            width, height = shrink.plan(size_of(path), rng)[1]
            sizes.append(width * height * 3)
    needed = sum(sizes) / max(len(sizes), 1) * len(paths)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{folder}: {free / 1e6:,.0f} MB are free on this disk, but the image cache needs "
            f"about {needed / 1e6:,.0f} MB; see data.cache.path and data.cache.shorter_side"
        )
    return needed


@contextmanager
def _progress(name: str, total: int) -> Iterator[Callable[[], None]]:
    """Show the progress of a build: a bar on a terminal, otherwise a line every minute."""
    console = training_console()
    if console.is_terminal:
        from resnet_fit.live_line import counted  # imports rich

        with counted(console, readable(name), total) as advance_by:
            yield lambda: advance_by(1)
        return
    begun = said = time.monotonic()
    done = 0

    def advance() -> None:
        nonlocal done, said
        done += 1
        now = time.monotonic()
        if now - said > NOTE_SECONDS:
            said = now
            left = (now - begun) / done * (total - done)
            say(f"{name}: {done:,} of {total:,} images decoded, {left / 60:,.0f} minutes left")

    yield advance
