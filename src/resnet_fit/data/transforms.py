"""Decoding of image files, and geometric operations that bring photos of all sizes to one size.

After these, images form a batch, and flips, colour jitter, cutout and normalisation are those of
`augment`. A list of transforms has the geometric ones first.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Union

import cv2
import numpy as np

from resnet_fit.config.registry import part
from resnet_fit.data import augment
from resnet_fit.data.augment.erasing import require_scale_and_ratio
from resnet_fit.data.augment.geometry import require_interpolation
from resnet_fit.data.copies import Copy
from resnet_fit.errors import UserError, require
from resnet_fit.files import readable

if TYPE_CHECKING:
    from PIL.Image import Image

# The result of an operation: an image, or its pixels as uint8 ``[H, W, 3]``.
Pixels = Union["Image", np.ndarray]
Size = tuple[int, int]
Box = tuple[float, float, float, float]
Interpolation = Literal["nearest", "bilinear", "bicubic"]

# Pillow's limit against decompression bombs; an image of this size takes half a gigabyte.
PIXEL_LIMIT = 178_956_970
# The largest aspect ratio of an image of which `Resize` takes all.
LONGEST = 100
# The background of transparent images: icons and drawings are made for white paper.
BACKGROUND = (255, 255, 255)
EXIF_ORIENTATION = 0x0112
# What brings an image of each EXIF orientation upright, as Pillow calls it; 1 is upright.
UPRIGHT = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
# Orientations that exchange width and height.
TURNED = (5, 6, 7, 8)
# Formats that Pillow can decode at a fraction of their size.
DRAFTED = ("JPEG", "MPO")
OPENCV = {
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
}


class BadImage(UserError):
    """A file that is not a readable image; the message is one line and begins with its path."""


# Whether a BadImage stops the program, or its file is left out.
OnBadImage = Literal["error", "skip"]


class Geometric:
    """An operation on one image; subclasses are frozen dataclasses of its settings."""

    part_name: ClassVar[str] = ""

    def __call__(self, image: Image, rng: np.random.Generator) -> Pixels:
        """Return the changed image; all random numbers come from ``rng``."""
        raise NotImplementedError


class Resample(Geometric):
    """A geometric operation that is one resampling, planned from the image's size alone.

    If it is the first of a list, a JPEG can be decoded at a fraction of its size.
    """

    interpolation: Interpolation

    def plan(self, size: Size, rng: np.random.Generator) -> tuple[Box, Size]:
        """Return the box to resample from an image of ``size``, (width, height), and its new size.

        The box is (left, upper, right, lower).
        """
        raise NotImplementedError

    def __call__(self, image: Image, rng: np.random.Generator) -> Pixels:
        box, size = self.plan(image.size, rng)
        return self.resample(image, box, size)

    def resample(self, image: Pixels, box: Box, size: Size) -> Pixels:
        """Return the pixels in ``box``, resampled to ``size``."""
        raise NotImplementedError


@part("transform", "random_resized_crop")
@dataclass(frozen=True)
class RandomResizedCrop(Resample):
    """Cut a random part and resample it to ``size`` pixels square (Szegedy et al. 2015, section 6).

    If ten random parts do not fit, the largest centred one is taken. OpenCV resamples, several
    times as fast as Pillow: it skips pixels when shrinking by less than 2, and averages them above.

    Args:
        size: pixels a side.
        scale: the part's share of the image's area, uniform between these two.
        ratio: its width divided by its height, log-uniform between these two.
        interpolation: ``nearest``, ``bilinear`` or ``bicubic``.
    """

    size: int = 224
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        require(self.size > 0, "size", self.size, "1 or more pixels")
        require_interpolation(self.interpolation)
        require_scale_and_ratio(self.scale, self.ratio)

    def plan(self, size: Size, rng: np.random.Generator) -> tuple[Box, Size]:
        width, height = size
        out = (self.size, self.size)
        for _ in range(10):
            area = width * height * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                left, upper = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
                return (left, upper, left + w, upper + h), out
        ratio = min(max(width / height, self.ratio[0]), self.ratio[1])
        w, h = min(width, max(1, round(height * ratio))), min(height, max(1, round(width / ratio)))
        left, upper = (width - w) // 2, (height - h) // 2
        return (left, upper, left + w, upper + h), out

    def resample(self, image: Pixels, box: Box, size: Size) -> np.ndarray:
        left, upper = round(box[0]), round(box[1])
        right, lower = max(left + 1, round(box[2])), max(upper + 1, round(box[3]))
        if isinstance(image, np.ndarray):
            part = image[upper:lower, left:right]
        else:
            part = np.asarray(image.crop((left, upper, right, lower)))
        halved = min((right - left) / size[0], (lower - upper) / size[1]) >= 2
        by_area = halved and self.interpolation != "nearest"
        kernel = cv2.INTER_AREA if by_area else OPENCV[self.interpolation]
        return cv2.resize(part, size, interpolation=kernel)


@part("transform", "resize")
@dataclass(frozen=True)
class Resize(Resample):
    """Resample so that the shorter side has ``size`` pixels; the aspect ratio stays.

    Pillow resamples, as for most published weights. An image that is more than 100 times as long as
    wide is cropped to this ratio around its centre, since the result might not fit in memory:
    1x30000 pixels would become 256x7680000.

    Args:
        size: pixels of the shorter side.
        interpolation: ``nearest``, ``bilinear`` or ``bicubic``.
    """

    size: int = 256
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        require(self.size > 0, "size", self.size, "1 or more pixels")
        require_interpolation(self.interpolation)

    def plan(self, size: Size, rng: np.random.Generator) -> tuple[Box, Size]:
        most = LONGEST * min(size)
        width, height = min(size[0], most), min(size[1], most)
        left, upper = (size[0] - width) / 2, (size[1] - height) / 2
        return (left, upper, left + width, upper + height), scaled((width, height), self.size)

    def resample(self, image: Pixels, box: Box, size: Size) -> Image:
        from PIL.Image import Resampling

        return _image(image).resize(size, Resampling[self.interpolation.upper()], box)


@part("transform", "center_crop")
@dataclass(frozen=True)
class CenterCrop(Geometric):
    """Keep a square in the middle.

    Args:
        size: pixels a side; a smaller image is a UserError.
    """

    size: int = 224

    def __post_init__(self) -> None:
        require(self.size > 0, "size", self.size, "1 or more pixels")

    def __call__(self, image: Image, rng: np.random.Generator) -> Image:
        width, height = image.size
        if min(width, height) < self.size:
            raise UserError(
                f"center_crop: {self.size} px do not fit into {width}x{height}; put resize before"
            )
        left, upper = round((width - self.size) / 2), round((height - self.size) / 2)
        return image.crop((left, upper, left + self.size, upper + self.size))


def split_operations(
    operations: Sequence[Geometric | augment.Operation],
) -> tuple[tuple[Geometric, ...], tuple[augment.Operation, ...], tuple[augment.Operation, ...]]:
    """Split a list into geometric operations, those on pixel values, and those from `Normalize` on.

    Raises UserError for a wrong order.
    """
    geometry = [op for op in operations if isinstance(op, Geometric)]
    batch = [op for op in operations if isinstance(op, augment.Operation)]
    if list(operations) != [*geometry, *batch]:
        first = next(i for i, op in enumerate(operations) if isinstance(op, augment.Operation))
        late = next(op for op in operations[first:] if isinstance(op, Geometric))
        late_name, first_name = (op.part_name for op in (late, operations[first]))
        raise UserError(f"{late_name} comes after {first_name}; put it before")
    augment.check_order(batch)
    cut = augment.first_normalize(batch)
    return tuple(geometry), tuple(batch[:cut]), tuple(batch[cut:])


def scaled(size: Size, shorter_side: int) -> Size:
    """A size of the same aspect ratio, rounded down to whole pixels."""
    width, height = size
    shorter = min(size)
    return shorter_side * width // shorter, shorter_side * height // shorter


# --- from file to pixels --------------------------------------------------------------


def decode(path: str | os.PathLike[str]) -> Image:
    """Decode a file to an upright RGB image.

    Greyscale, palette and CMYK are converted, 16-bit grey is scaled to 8 bits, transparent pixels
    get a white background, EXIF orientation is applied, and an animation gives its first frame.
    Raises BadImage, with the file's name, if it cannot be read completely, or has more pixels than
    `PIXEL_LIMIT`.
    """
    with _opened(path) as image:
        return _upright_rgb(image)


def size_of(path: str | os.PathLike[str]) -> Size:
    """Width and height as the file gives them: not of the upright image. Raises as `decode`."""
    with _opened(path) as image:
        return image.size


def load(
    path: str | os.PathLike[str], operations: Sequence[Geometric], rng: np.random.Generator
) -> Pixels:
    """Decode a file and apply ``operations``; a JPEG may be decoded at a reduced size.

    The reduction (1/2, 1/4 or 1/8, by the decoder's cosine transform) never gives fewer pixels than
    the first operation needs. Raises as `decode`.
    """
    first = operations[0] if operations else None
    if not isinstance(first, Resample):
        return _apply(operations, decode(path), rng)
    with _opened(path) as file:
        if file.format not in DRAFTED:
            file.load()  # only then a TIFF has its final size and orientation
        full = file.size[::-1] if _orientation(file) in TURNED else file.size
        (left, upper, right, lower), size = first.plan(full, rng)
        shrink = int(min((right - left) / size[0], (lower - upper) / size[1]))
        if shrink >= 2:
            file.draft(file.mode, (file.size[0] // shrink, file.size[1] // shrink))
        image = _upright_rgb(file)
    x, y = image.size[0] / full[0], image.size[1] / full[1]
    pixels = first.resample(image, (left * x, upper * y, right * x, lower * y), size)
    return _apply(operations[1:], pixels, rng)


def load_copy(copy: Copy, operations: Sequence[Geometric], rng: np.random.Generator) -> Pixels:
    """Apply ``operations`` to a decoded copy."""
    first = operations[0] if operations else None
    if not isinstance(first, Resample):
        return _apply(operations, copy.read(), rng)
    (left, upper, right, lower), size = first.plan((copy.width, copy.height), rng)
    top = int(upper)
    rows = copy.read(top, math.ceil(lower))
    pixels = first.resample(rows, (left, upper - top, right, lower - top), size)
    return _apply(operations[1:], pixels, rng)


def _apply(operations: Sequence[Geometric], pixels: Pixels, rng: np.random.Generator) -> Pixels:
    for operation in operations:
        pixels = operation(_image(pixels), rng)
    return pixels


def _image(pixels: Pixels) -> Image:
    from PIL import Image as pillow

    return pillow.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Image]:
    """Open an image; every error becomes a BadImage with the file's name."""
    from PIL import Image as pillow
    from PIL import UnidentifiedImageError

    try:
        mode = os.stat(path).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # Pillow refuses a folder itself
            raise BadImage("not a file but a device, pipe or socket")
        with pillow.open(path) as image:
            width, height = image.size
            if width * height > PIXEL_LIMIT:
                raise BadImage(f"{width}x{height} pixels, the limit is {PIXEL_LIMIT:,} in total")
            yield image
    except MemoryError:
        raise
    # Damaged files make Pillow's decoders raise OSError, SyntaxError, ValueError and more.
    except Exception as error:
        if isinstance(error, UnidentifiedImageError):
            reason = "not an image" if os.path.getsize(path) else "empty file"
        elif isinstance(error, OSError) and error.strerror:
            reason = error.strerror.lower()
        else:
            reason = str(error) or type(error).__name__
        raise BadImage(readable(f"{os.fspath(path)}: {reason}")) from error


def _upright_rgb(image: Image) -> Image:
    from PIL.Image import Transpose

    image.load()  # turns a TIFF upright, and removes its orientation
    orientation = _orientation(image)
    rgb = _rgb(image)
    return rgb.transpose(Transpose[UPRIGHT[orientation]]) if orientation in UPRIGHT else rgb


def _orientation(image: Image) -> int:
    """EXIF orientation; 1, which is upright, where there is none, or one that cannot be read."""
    # A damaged EXIF block makes Pillow raise SyntaxError, struct.error and more. The pixels do
    # not depend on it.
    with suppress(Exception):
        return int(image.getexif().get(EXIF_ORIENTATION, 1))
    return 1


def _rgb(image: Image) -> Image:
    from PIL import Image as pillow

    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        return _from_wide(np.asarray(image)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels: the value of white is unknown")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        paper = pillow.new("RGBA", image.size, (*BACKGROUND, 255))
        return pillow.alpha_composite(paper, image).convert("RGB")
    return image.convert("RGB")


def _from_wide(levels: np.ndarray) -> Image:
    from PIL import Image as pillow

    if levels.min() < 0 or levels.max() > 65535:
        raise ValueError(
            f"32-bit grey of {levels.min()}..{levels.max()}: the value of white is unknown"
        )
    return pillow.fromarray(((levels.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8))
