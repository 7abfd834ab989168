"""Preprocessing of single image files, exactly as in an evaluation; does not import Paddle."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from resnet_fit.config.registry import parts
from resnet_fit.data.augment import Operation, compose
from resnet_fit.data.augment.operation import rounded
from resnet_fit.data.seeding import generator
from resnet_fit.data.transforms import BadImage, Geometric, decode, load, split_operations
from resnet_fit.errors import UserError
from resnet_fit.files import readable

Shape = tuple[int, int, int]
PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Preparation:
    """Turns the path of an image file into the network's input ``[C, H, W]``.

    The result is float32 if `Normalize` is among the operations, otherwise pixel values. Raises
    UserError, in one line that begins with the path, for a file that cannot be read or an image of
    another shape than the network's input.

    Attributes:
        operations: of the evaluation, the geometric ones first.
        image_shape: ``(C, H, W)`` after the operations.
        stored_shape: ``(C, H, W)`` of images in memory; None for image files of any size.
    """

    operations: tuple[Geometric | Operation, ...]
    image_shape: Shape
    stored_shape: Shape | None

    def __post_init__(self) -> None:
        split_operations(self.operations)  # refuses a wrong order now, not at the first image

    def __call__(self, path: PathLike) -> np.ndarray:
        image = self._of_file(path) if self.stored_shape is None else self._of_array(path)
        if image.shape != self.image_shape:
            raise UserError(
                f"{readable(os.fspath(path))}: {_described(image.shape)} after preprocessing, but "
                f"this network was trained on {_described(self.image_shape)}"
            )
        return image

    def _of_file(self, path: PathLike) -> np.ndarray:
        """As in `FileLoader`: pixel values are whole numbers until `Normalize`."""
        geometry, inside, after = split_operations(self.operations)
        rng = generator(0, 0)  # the usual operations of an evaluation are not random
        try:
            pixels = np.asarray(load(path, geometry, rng)).transpose(2, 0, 1)
            return compose(after)(rounded(compose(inside)(pixels[None], rng)), rng)[0]
        except BadImage:
            raise
        except UserError as error:
            raise UserError(f"{readable(os.fspath(path))}: {error}") from None

    def _of_array(self, path: PathLike) -> np.ndarray:
        """As in `ArrayLoader`."""
        assert self.stored_shape is not None
        image = read_as(path, self.stored_shape)
        return compose(self.operations)(image[None], generator(0, 0))[0]  # type: ignore[arg-type]


def known_operations(stored_shape: Shape | None) -> Mapping[str, Callable[..., Any]]:
    """The operations by name: for images in memory, or for image files if the shape is None."""
    in_memory = parts("augmentation")
    return in_memory if stored_shape is not None else {**in_memory, **parts("transform")}


def read_as(path: PathLike, shape: Shape) -> np.ndarray:
    """Read an image file like an image in memory.

    Args:
        shape: the expected ``(C, H, W)``.

    Returns:
        uint8 of this shape.

    Raises:
        UserError: it cannot be read, or has another size.
    """
    channels, height, width = shape
    image = decode(path)
    if image.size != (width, height) or channels not in (1, 3):
        raise UserError(
            f"{readable(os.fspath(path))}: {image.size[0]}x{image.size[1]} pixels, but this "
            f"network was trained on images of {width}x{height}"
            + ("" if channels in (1, 3) else f" with {channels} channels, which no file has")
        )
    pixels = np.asarray(image.convert("L") if channels == 1 else image)
    return np.atleast_3d(pixels).transpose(2, 0, 1)


def _described(shape: tuple[int, ...]) -> str:
    channels, height, width = shape
    return f"{width}x{height} pixels of {channels} channel{'s' if channels > 1 else ''}"
