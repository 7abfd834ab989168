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
from resnet_fit.data.dataset import Dataset, FileDataset, split, subset
from resnet_fit.data.datasets.data import Data, Parts
from resnet_fit.data.listing import BESIDE_CLASSES, EXTENSIONS, LeftOut, list_images
from resnet_fit.data.transforms import Interpolation, OnBadImage, Resize
from resnet_fit.errors import UserError, few, suggest
from resnet_fit.files import readable, require_existing
from resnet_fit.home import expand

# Folder names of the parts, in any letter case: Train, training_set, test-images.
PARTS = {
    "train": "train|training",
    "validation": "val|valid|validation|eval|evaluation",
    "test": "test|testing",
}
SUFFIX = "([ _-]?(set|data|images))?"
# How many kinds of ignored files a warning lists.
SHOWN_KINDS = 5
EXPECTED = (
    "train/ and val/ (or test/) with one folder of images per class in each, or the class folders "
    "themselves"
)


class Cache(Settings):
    """A cache of decoded, shrunk images; transforms then work on these.

    Args:
        shorter_side: of the cached images, in pixels.
        interpolation: by which they are shrunk: ``nearest``, ``bilinear`` or ``bicubic``, as the
            ``resize`` of the augmentation.
        path: the cache's folder; by default below the user's cache folder.
    """

    shorter_side: PositiveInt
    interpolation: Interpolation = "bilinear"
    path: Location | None = None


@part("data", "folder")
class Folder(Data):
    """Images in files: one folder for each class.

    Args:
        path: a folder with ``train/<class>/`` and ``val/<class>/``; or with ``<class>/`` alone, if
            ``validation`` gives the share to hold out.
        on_bad_image: what the training does with an unreadable file: ``error`` stops, ``skip``
            leaves the file out and lists it.
        workers: worker processes that decode; by default one for each core, at most 8.
        cache: keeps decoded images on disk, so that files are decoded once and not in every epoch.
        compare: how a resumed run checks that its data are the same: by file names, counts and
            ``content``, which opens every file at the start, or by ``names`` and counts alone.
    """

    path: Location
    on_bad_image: OnBadImage = "error"
    workers: NonNegativeInt | None = None
    cache: Cache | None = None
    compare: Literal["content", "names"] = "content"

    def load(self) -> tuple[FileDataset, FileDataset]:
        return folder(self.path, self.validation or None, self.split_seed)

    def open(self) -> Parts:
        train, held_out = self.load()
        return Parts(subset(train, self.limit), subset(held_out, self.limit), None)

    def judged_on(self, evaluation: Dataset) -> str:
        is_test = not self.validation and _part(_last_folder(evaluation)) == "test"
        return "test" if is_test else "validation"

    def operations(self) -> Mapping[str, Callable[..., Any]]:
        return {**parts("augmentation"), **parts("transform")}

    def check_operations(self, operations: Sequence[Any]) -> None:
        geometry, *_ = transforms.split_operations(operations)
        if self.cache is None:
            return
        largest = max((getattr(operation, "size", 0) for operation in geometry), default=0)
        if self.cache.shorter_side < largest:
            raise UserError(
                f"asks for {largest} pixels, data.cache.shorter_side keeps "
                f"{self.cache.shorter_side}; expected {largest} or more there"
            )
        for operation in geometry:
            if (
                isinstance(operation, Resize)
                and operation.interpolation != self.cache.interpolation
            ):
                raise UserError(
                    f"resize is {operation.interpolation}, data.cache.interpolation is "
                    f"{self.cache.interpolation}; expected the same"
                )


def folder(
    path: str | os.PathLike[str], validation: float | None = None, seed: int = 0
) -> tuple[FileDataset, FileDataset]:
    """Index an image folder as ``(train, held_out)``.

    Either ``path`` holds ``train/`` and ``val/`` or ``test/``, each with one folder per class; or
    it holds the class folders themselves (or only ``train/``), and ``validation`` is the stratified
    fraction to hold out by ``seed``. Other usual names of the parts are known, in any letter case
    (`PARTS`); ``val/`` is preferred to ``test/``. Classes and files are sorted by name. Folders
    inside a class folder belong to it; links are followed; hidden files and unknown extensions are
    left out. Warns of files that are left out, except hidden ones. Raises UserError, with the
    place, if something is missing or ambiguous.
    """
    root = expand(path)
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
    """The folder of class folders to evaluate on: the held-out part, or ``path`` itself.

    Raises:
        UserError: it is missing, is not a folder, or has parts but no held-out one.
    """
    root = expand(path)
    parts, _ = _parts(root)
    name = parts.get("validation") or parts.get("test")
    if parts and not name:
        raise UserError(f"{root}: has {_folders(parts.values())} but no part that is held out")
    return root / (name or "")


def _parts(root: Path) -> tuple[dict[str, str], list[str]]:
    """The folder name of each part, and the names of the other folders."""
    require_existing(root)
    if not root.is_dir():
        raise UserError(f"{root}: not a folder; extract it if it is an archive")
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


def _last_folder(dataset: Dataset) -> str:
    return Path(dataset.root).name if isinstance(dataset, FileDataset) else ""


def _part(name: str) -> str | None:
    """Which part of a data set a folder is, by its name; None for other names."""
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
    """Index one folder of class folders; warns of files that are left out."""
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
    """Warn in one line of ignored files, the most frequent kinds first."""
    kinds = sorted(left_out.items(), key=lambda item: -item[1].files)
    shown = [f"{found.files:,} {kind} ({found.example})" for kind, found in kinds[:SHOWN_KINDS]]
    if rest := sum(found.files for _, found in kinds[SHOWN_KINDS:]):
        shown.append(f"{rest:,} others")
    if shown:
        warnings.warn(readable(f"{root}: left out: {', '.join(shown)}"), stacklevel=3)


def _check_classes(
    found: tuple[str, ...], place: Path, expected: tuple[str, ...], train_place: Path
) -> None:
    """Raise UserError if the held-out part does not have the classes of the training part."""
    unknown = [name for name in found if name not in expected]
    if unknown:
        hint = suggest(unknown[0], expected)
        raise UserError(f"{place}: class {_quoted(unknown)} is not in {train_place}.{hint}")
    missing = [name for name in expected if name not in found]
    if missing:
        raise UserError(f"{place}: class {_quoted(missing)} of {train_place} is missing")


def _quoted(names: Iterable[str]) -> str:
    return few(map(repr, names), most=5)
