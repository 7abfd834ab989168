"""Image folders: one folder of image files for each class."""

from __future__ import annotations

import os
import re
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from resnet_fit.config.registry import part, parts
from resnet_fit.config.settings import Location, NonNegativeInt, PositiveInt, Settings
from resnet_fit.data import transforms
from resnet_fit.data.dataset import FileDataset, split, subset
from resnet_fit.data.datasets.data import Data, Parts
from resnet_fit.data.listing import BESIDE_CLASSES, EXTENSIONS, LeftOut, list_images
from resnet_fit.errors import UserError, suggest
from resnet_fit.files import readable, require_existing
from resnet_fit.home import expand

# How folders of the parts are named, in any letter case: Train, training_set, test-images.
PARTS = {
    "train": "train|training",
    "validation": "val|valid|validation|eval|evaluation",
    "test": "test|testing",
}
SUFFIX = "([ _-]?(set|data|images))?"
# Kinds of files left out that a warning names.
SHOWN_KINDS = 5
EXPECTED = (
    "train/ and val/ (or test/) with one folder of images per class in each, or the class folders "
    "themselves"
)


class Cache(Settings):
    """Decoded images kept in a file, shrunk; transforms act on these.

    Args:
        shorter_side: of the kept images, in pixels.
        path: the folder for it; the user's cache folder by default.
    """

    shorter_side: PositiveInt
    path: Location | None = None


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
        compare: how a run that goes on knows that its data are the same: by names, numbers and
            ``content``, for which every file is opened at the start, or by ``names`` and numbers
            alone.
    """

    path: Location
    on_bad_image: Literal["error", "skip"] = "error"
    workers: NonNegativeInt | None = None
    cache: Cache | None = None
    compare: Literal["content", "names"] = "content"

    def load(self) -> tuple[FileDataset, FileDataset]:
        return folder(self.path, self.validation or None, self.split_seed)

    def open(self) -> Parts:
        train, held_out = self.load()
        return Parts(subset(train, self.limit), subset(held_out, self.limit), None)

    def operations(self) -> Mapping[str, Callable[..., Any]]:
        return {**parts("augmentation"), **parts("transform")}

    def check_operations(self, operations: Sequence[Any]) -> None:
        geometry, *_ = transforms.split_operations(operations)
        largest = max((getattr(operation, "size", 0) for operation in geometry), default=0)
        if self.cache is not None and self.cache.shorter_side < largest:
            raise UserError(
                f"asks for {largest} pixels, data.cache.shorter_side keeps "
                f"{self.cache.shorter_side}; expected {largest} or more there"
            )


def folder(
    path: str | os.PathLike[str], validation: float | None = None, seed: int = 0
) -> tuple[FileDataset, FileDataset]:
    """Index an image folder as ``(train, held_out)``.

    Either ``path`` holds ``train/`` and ``val/`` or ``test/``, each with one folder per class; or
    it holds the class folders themselves (or only ``train/``), and ``validation`` is the stratified
    fraction to hold out by ``seed``. Other usual names of the parts are known, in any letter case
    (`PARTS`); of ``val/`` and ``test/`` the first is taken. Classes and files are sorted by name.
    Folders inside a class folder belong to it; links are followed; hidden names and unknown
    extensions are left out. Warns of what is left out, but for hidden names. Raises UserError,
    naming the place, for whatever is missing or has two meanings.
    """
    root = expand(path)
    require_existing(root)
    if not root.is_dir():
        raise UserError(f"{root}: not a folder; extract it if it is an archive")
    parts, others = _parts(root)
    train_name, held_out_name = parts.get("train"), parts.get("validation") or parts.get("test")
    if held_out_name and not train_name:
        raise UserError(f"{root}: has {held_out_name}/ but no train/; expected {EXPECTED}")
    if held_out_name and validation is not None:
        raise UserError(
            f"{root}: has {held_out_name}/ and a validation fraction of {validation}; drop one of "
            "them"
        )
    used = [name for name in (train_name, held_out_name) if name]
    unused = sorted({*parts.values(), *others}.difference(used))
    if used and unused:
        line = f"{root}: uses {_folders(used, ' and ')}; not used: {_folders(unused)}"
        warnings.warn(readable(line), stacklevel=2)
    train_place = root / (train_name or "")
    train = scan(train_place)
    if len(train.classes) == 1:
        raise UserError(
            f"{train_place}: only one class, {train.classes[0]!r}; a classifier needs two or more"
        )
    if held_out_name:
        held_out = scan(root / held_out_name)
        _check_classes(held_out.classes, root / held_out_name, train.classes, train_place)
        return train, held_out
    if validation is None:
        raise UserError(
            f"{root}: no folder to validate on (val/ or test/); add one, or give a fraction to "
            "hold out (data.validation: 0.1)"
        )
    return split(train, validation, seed)


def held_out_folder(path: str | os.PathLike[str]) -> Path:
    """The folder of class folders to judge a network by: the held-out part, or all of ``path``.

    Raises:
        UserError: it is not there, no folder, or has parts of which none is held out.
    """
    root = expand(path)
    require_existing(root)
    if not root.is_dir():
        raise UserError(f"{root}: not a folder; extract it if it is an archive")
    parts, _ = _parts(root)
    name = parts.get("validation") or parts.get("test")
    if parts and not name:
        raise UserError(f"{root}: has {_folders(parts.values())} but no part that is held out")
    return root / (name or "")


def _parts(root: Path) -> tuple[dict[str, str], list[str]]:
    """The names of the folders that are parts, by part, and of the other folders."""
    try:
        names = sorted(e.name for e in os.scandir(root) if not e.name.startswith("."))
    except OSError as error:
        raise UserError(f"{root}: cannot be read ({error.strerror})") from None
    found: dict[str | None, list[str]] = defaultdict(list)
    for name in names:
        if os.path.isdir(root / name):
            found[_part(name)].append(name)
    others = found.pop(None, [])
    for kind, several in found.items():
        if len(several) > 1:
            raise UserError(
                f"{root}: has {_folders(several)}, all named like the {kind} part; expected "
                f"{EXPECTED}"
            )
    return {str(kind): name for kind, (name,) in found.items()}, others


def _part(name: str) -> str | None:
    """Which part of a data set a folder is, by its name."""
    return next(
        (
            kind
            for kind, names in PARTS.items()
            if re.fullmatch(f"({names}){SUFFIX}", name, re.IGNORECASE)
        ),
        None,
    )


def _folders(names: Iterable[str], link: str = ", ") -> str:
    return link.join(f"{name}/" for name in names)


def scan(root: Path) -> FileDataset:
    """Index one folder of class folders. Warns of files that are left out."""
    listing = list_images(root)
    classes, counts = listing.classes, listing.counts
    loose = listing.left_out.get(BESIDE_CLASSES)
    if not classes:
        found = f"{loose.files} images but no class folders" if loose else "no class folders"
        raise UserError(f"{root}: {found}; expected one folder of images per class")
    if all(_part(name) for name in classes):
        raise UserError(
            f"{root}: {_quoted(classes)} are names of parts, not of classes; expected one folder "
            "of images per class"
        )
    empty = [name for name, count in zip(classes, counts, strict=True) if not count]
    if empty:
        raise UserError(
            f"{root}: no images ({', '.join(sorted(EXTENSIONS))}) in class {_quoted(empty)}; "
            "add some or remove the folder"
        )
    _warn_of_left_out(root, listing.left_out)
    labels = np.repeat(np.arange(len(classes)), counts)
    return FileDataset(listing.paths, labels, classes, root=os.path.join(root, ""))


def _warn_of_left_out(root: Path, left_out: dict[str, LeftOut]) -> None:
    """One line about the files that are not taken, the most frequent kinds first."""
    kinds = sorted(left_out.items(), key=lambda item: -item[1].files)
    shown = [f"{found.files:,} {kind} ({found.example})" for kind, found in kinds[:SHOWN_KINDS]]
    if rest := sum(found.files for _, found in kinds[SHOWN_KINDS:]):
        shown.append(f"{rest:,} others")
    if shown:
        warnings.warn(readable(f"{root}: left out: {', '.join(shown)}"), stacklevel=3)


def _check_classes(
    found: tuple[str, ...], place: Path, expected: tuple[str, ...], train_place: Path
) -> None:
    """Raise a UserError if the held-out part has not the same classes as the training part."""
    unknown = [name for name in found if name not in expected]
    if unknown:
        hint = suggest(unknown[0], expected)
        raise UserError(f"{place}: class {_quoted(unknown)} is not in {train_place}.{hint}")
    missing = [name for name in expected if name not in found]
    if missing:
        raise UserError(f"{place}: class {_quoted(missing)} of {train_place} is missing")


def _quoted(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
