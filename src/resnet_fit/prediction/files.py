"""Which files to look at: those named, those in folders, and names that standard input gives."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator, Sequence
from typing import TextIO

from resnet_fit.data.listing import images_below
from resnet_fit.errors import UserError
from resnet_fit.files import readable

CHUNK = 1 << 16


def named_files(arguments: Sequence[str]) -> list[str]:
    """Files as they are named, and in the place of a folder all images in and below it.

    A name of nothing is kept: whoever opens it says so.

    Raises:
        UserError: a folder without images.
    """
    files: list[str] = []
    for argument in arguments:
        if not os.path.isdir(argument):
            files.append(argument)
            continue
        found = list(images_below(argument))
        if not found:
            raise UserError(f"{readable(argument)}: no image in this folder")
        files += found
    return files


def batches_of(files: Sequence[str], size: int) -> Iterator[list[str]]:
    """Files ``size`` at a time."""
    for start in range(0, len(files), size):
        yield list(files[start : start + size])


def batches_of_lines(stream: TextIO, size: int) -> Iterator[list[str]]:
    """File names, one a line, up to ``size`` at a time: as soon as no more are there at once.

    A program that writes a name and awaits the answer gets it.
    """
    descriptor = stream.fileno()
    names: list[str] = []
    rest = b""
    while chunk := os.read(descriptor, CHUNK):
        *lines, rest = (rest + chunk).split(b"\n")
        names += _names(lines)
        while len(names) >= size:
            yield names[:size]
            names = names[size:]
        if names and not select.select([descriptor], [], [], 0)[0]:
            yield names
            names = []
    yield from batches_of([*names, *_names([rest])], size)


def _names(lines: Sequence[bytes]) -> list[str]:
    return [os.fsdecode(line) for line in lines if line]
