"""Image folders: one folder of image files for each class."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from resnet_fit.config.registry import part, parts
from resnet_fit.config.settings import NonNegativeInt, PositiveInt, Settings
from resnet_fit.data import transforms
from resnet_fit.data.dataset import FileDataset, split, subset
from resnet_fit.data.datasets.data import Data, Parts
from resnet_fit.data.listing import EXTENSIONS, list_images
from resnet_fit.errors import UserError, suggest
from resnet_fit.files import require_existing


class Cache(Settings):
    """Decoded images kept in a file, shrunk; transforms act on these.

    Args:
        shorter_side: of the kept images, in pixels.
        path: the folder for it; the user's cache folder by default.
    """

    shorter_side: PositiveInt
    path: str | None = None


HELD_OUT_NAMES = ("val", "valid", "validation", "test")


def folder(
    path: str | os.PathLike[str], validation: float | None = None, seed: int = 0
) -> tuple[FileDataset, FileDataset]:
    """Index an image folder as ``(train, held_out)``.

    Either ``path`` holds ``train/`` and the first there is of ``val/``, ``valid/``, ``validation/``
    and ``test/``, each with one folder per class; or it holds the class folders themselves (or only
    ``train/``), and ``validation`` is the stratified fraction to hold out by ``seed``. Classes and
    files are sorted by name. Folders inside a class folder belong to it; links are followed; hidden
    names and unknown extensions are left out. A large folder's listing is kept and used again until
    something in the folder changes. Raises UserError, naming the place, for whatever is missing.
    """
    root = Path(path).expanduser()
    require_existing(root)
    if not root.is_dir():
        raise UserError(f"{root}: not a folder; extract it if it is an archive")
    held_out = next((root / name for name in HELD_OUT_NAMES if (root / name).is_dir()), None)
    if not (root / "train").is_dir():
        if held_out is not None:
            raise UserError(f"{root}: has {held_out.name}/ but no train/")
        held_out, train = None, scan(root)
    else:
        train = scan(root / "train")
    if held_out is None:
        if validation is None:
            raise UserError(
                f"{root}: no folder to validate on ({', '.join(n + '/' for n in HELD_OUT_NAMES)}); "
                "add one, or give a fraction to hold out (data.validation: 0.1)"
            )
        return split(train, validation, seed)
    if validation is not None:
        raise UserError(
            f"{root}: has {held_out.name}/ and a validation fraction of {validation}; "
            "drop one of them"
        )
    return train, _matched(scan(held_out), train.classes, held_out, root / "train")


def scan(root: Path) -> FileDataset:
    """Index one folder of class folders."""
    listing = list_images(root)
    classes, counts = listing.classes, listing.counts
    if not classes:
        loose = listing.loose
        found = f"{loose} images but no class folders" if loose else "no class folders"
        raise UserError(f"{root}: {found}; expected one folder of images per class")
    empty = [name for name, count in zip(classes, counts, strict=True) if not count]
    if empty:
        raise UserError(
            f"{root}: no images ({', '.join(sorted(EXTENSIONS))}) in class {_listed(empty)}; "
            "add some or remove the folder"
        )
    if len(classes) == 1:
        raise UserError(f"{root}: only one class, {classes[0]!r}; a classifier needs two or more")
    return FileDataset(listing.paths, np.repeat(np.arange(len(classes)), counts), classes)


def _matched(
    held_out: FileDataset, classes: tuple[str, ...], place: Path, train: Path
) -> FileDataset:
    unknown = [name for name in held_out.classes if name not in classes]
    if unknown:
        hint = suggest(unknown[0], classes)
        raise UserError(f"{place}: class {_listed(unknown)} is not in {train}.{hint}")
    missing = [name for name in classes if name not in held_out.classes]
    if missing:
        raise UserError(f"{place}: class {_listed(missing)} of {train} is missing")
    return held_out


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"


@part("data", "folder")
class Folder(Data):
    """Images in files: one folder for each class.

    Args:
        path: a folder with ``train/<class>/`` and ``val/<class>/``, or with ``<class>/`` alone and
            a share to hold out, ``validation``.
        on_bad_image: what a file that cannot be read does to a training: ``error`` stops it,
            ``skip`` leaves the file out and lists it.
        workers: processes that decode; one for each core by default, at most 8.
        cache: keeps decoded images, so that they are decoded once and not in every epoch.
    """

    path: str
    on_bad_image: Literal["error", "skip"] = "error"
    workers: NonNegativeInt | None = None
    cache: Cache | None = None

    def load(self) -> tuple[FileDataset, FileDataset]:
        return folder(self.path, self.validation or None, self.split_seed)

    def open(self) -> Parts:
        train, held_out = self.load()
        return Parts(subset(train, self.limit), subset(held_out, self.limit), None)

    def operations(self) -> Mapping[str, Callable[..., Any]]:
        return {**parts("augmentation"), **parts("transform")}

    def check_operations(self, operations: Sequence[Any]) -> None:
        geometry, *_ = transforms.stages(operations)
        largest = max((getattr(operation, "size", 0) for operation in geometry), default=0)
        if self.cache is not None and self.cache.shorter_side < largest:
            raise UserError(
                f"asks for {largest} pixels, data.cache.shorter_side keeps "
                f"{self.cache.shorter_side}; expected {largest} or more there"
            )
