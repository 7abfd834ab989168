"""The files to predict: from arguments, from folders, and from standard input."""

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
    """The given files; a folder is replaced by all images in it and its subfolders.

    Missing files are kept; opening them reports the error.

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
    """File names, one per line, up to ``size`` at a time; fewer if no more input is waiting.

    So a program can write a name and wait for the answer.
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
