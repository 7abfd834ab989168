"""Digests of a data set, to check that the images are those of an earlier run.

The digest of arrays covers every byte. The digest of a file covers its size and three pieces: its
first, middle and last kilobyte. So data may be moved or copied, and a replaced image is noticed,
but not a change between these pieces that keeps the size: reading 1.3 million whole photographs
(140 GB) would take minutes to hours; the pieces take half a minute from the system's memory and
some minutes from a local disk (``benchmarks/digest.py``). Modification times are left out, since
copying changes them.
"""

from __future__ import annotations

import hashlib
import os
import stat
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from resnet_fit.data.dataset import ArrayDataset, Dataset, FileDataset
from resnet_fit.terminal import say

PIECE_BYTES = 1024
# Threads that wait for the disk or a file server, and files of one task.
THREADS = 8
FILES_AT_ONCE = 1000
# From this many files on it takes long enough for a message.
MANY_FILES = 200_000

# O_BINARY exists on Windows only, O_NONBLOCK elsewhere: opening a pipe must not wait.
_FLAGS = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)


def names_digest(dataset: Dataset) -> str:
    """A hexadecimal digest of the labels and the file names, in data set order.

    File names are paths below the data set's folder.
    """
    total = hashlib.blake2b(np.ascontiguousarray(dataset.labels, "<i8").data, digest_size=16)
    if isinstance(dataset, FileDataset):
        separator = b""
        for index in range(len(dataset)):
            total.update(separator + os.fsencode(dataset.name(index)))
            separator = b"\0"
    return total.hexdigest()


def content_digest(dataset: Dataset) -> str:
    """A hexadecimal digest of the images, in data set order."""
    total = hashlib.blake2b(digest_size=16)
    if isinstance(dataset, ArrayDataset):
        total.update(repr(dataset.images.shape).encode())
        total.update(np.ascontiguousarray(dataset.images).data)
        return total.hexdigest()
    paths = dataset.paths
    if len(paths) >= MANY_FILES:
        say(f"{dataset.root or 'image files'}: reads a piece of each of {len(paths):,} files")

    def digests(first: int) -> bytes:
        return b"".join(map(_of_file, paths[first : first + FILES_AT_ONCE]))

    with ThreadPoolExecutor(THREADS) as pool:
        for part in pool.map(digests, range(0, len(paths), FILES_AT_ONCE)):
            total.update(part)
    return total.hexdigest()


def _of_file(file: str) -> bytes:
    try:
        size, content = _sample(file)
    except OSError:  # the loader reports it
        size, content = -1, b""
    return hashlib.blake2b(b"%d\0%b" % (size, content), digest_size=16).digest()


def _sample(file: str) -> tuple[int, bytes]:
    """A file's size, and its content, or three pieces of it for a larger file."""
    handle = os.open(file, _FLAGS)
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            return -1, b""
        size = status.st_size
        if size <= 3 * PIECE_BYTES:
            return size, os.read(handle, size)
        pieces = []
        for begin in (0, size // 2, size - PIECE_BYTES):
            os.lseek(handle, begin, os.SEEK_SET)
            pieces.append(os.read(handle, PIECE_BYTES))
        return size, b"".join(pieces)
    finally:
        os.close(handle)
