"""Batches of images from files: the work of a worker process."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from resnet_fit.data import augment
from resnet_fit.data.augment.operation import rounded
from resnet_fit.data.copies import Copy
from resnet_fit.data.seeding import generator
from resnet_fit.data.transforms import BadImage, Geometric, OnBadImage, load, load_copy
from resnet_fit.errors import UserError
from resnet_fit.files import readable


@dataclass(frozen=True)
class Task:
    """One batch to load: its files, their decoded copies (or None), epoch and batch index."""

    paths: tuple[str, ...]
    copies: tuple[Copy | None, ...]
    epoch: int
    batch: int
    phases: np.ndarray


@dataclass(frozen=True)
class PreparedBatch:
    """A batch: uint8 ``[B, 3, H, W]``, the rows that could be read, and errors of the others."""

    images: np.ndarray
    rows: np.ndarray
    bad: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True)
class Batching:
    """Turns files into a batch of uint8 images of one size."""

    geometry: tuple[Geometric, ...]
    operations: tuple[augment.Operation, ...]
    seed: int
    on_bad_image: OnBadImage

    def make(self, task: Task) -> PreparedBatch:
        """Decode and transform the files of one batch.

        Raises BadImage for an unreadable file unless such files are skipped, and UserError if the
        transforms leave images of different sizes.
        """
        images = np.empty((0, 3, 0, 0), np.uint8)
        rows: list[int] = []
        bad: list[tuple[int, str]] = []
        for row, (path, copy) in enumerate(zip(task.paths, task.copies, strict=True)):
            rng = generator(self.seed, task.epoch, task.batch, row)
            try:
                pixels = self._pixels(path, copy, rng)
            except BadImage as error:
                if self.on_bad_image == "error":
                    raise
                bad.append((row, str(error)))
                continue
            if not rows:
                images = np.empty((len(task.paths), 3, *pixels.shape[:2]), np.uint8)
            elif pixels.shape[:2] != images.shape[2:]:
                raise UserError(
                    f"{readable(path)}: {_size(pixels.shape[:2])} after its transforms, but others "
                    f"of its batch are {_size(images.shape[2:])}; add random_resized_crop, or "
                    "resize and center_crop"
                )
            _split_channels(pixels, images[len(rows)])
            rows.append(row)
        images = augment.compose(self.operations)(
            images[: len(rows)],
            generator(self.seed, task.epoch, task.batch),
            task.phases[rows],
        )
        return PreparedBatch(rounded(images), np.array(rows, np.intp), tuple(bad))

    def _pixels(self, path: str, copy: Copy | None, rng: np.random.Generator) -> np.ndarray:
        try:
            if copy is None:
                pixels = load(path, self.geometry, rng)
            else:
                pixels = load_copy(copy, self.geometry, rng)
            return np.asarray(pixels)
        except BadImage:
            raise
        except UserError as error:
            raise UserError(f"{readable(path)}: {error}") from error


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"


def _split_channels(pixels: np.ndarray, channels: np.ndarray) -> None:
    """Copy ``[H, W, 3]`` to ``[3, H, W]``; OpenCV is several times as fast at it as numpy."""
    cv2.mixChannels([pixels], [*channels], [0, 0, 1, 1, 2, 2])
