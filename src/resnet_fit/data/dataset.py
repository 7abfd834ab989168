"""Images and their labels, in memory or in files; splits and subsets."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from resnet_fit.data.copies import Copies
from resnet_fit.errors import UserError, require

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True, eq=False)
class ArrayDataset:
    """Images in memory: uint8 ``[N, C, H, W]``, and ``labels`` int64 ``[N]`` into ``classes``.

    Raises UserError for arrays of another shape or dtype; lists become arrays, labels of any
    integers int64, and ``classes`` a tuple of texts. ``names``, one for each image, tell where the
    images are from; None for their indices.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        images = np.asarray(self.images)
        fits = images.ndim == 4 and images.dtype == np.uint8
        require(fits, "images", _described(images), "uint8 pixel values of 0 to 255, [N, C, H, W]")
        pixels_first = images.shape[3] in (1, 3) and images.shape[1] not in (1, 3)
        channels_first = "channels first: use images.transpose(0, 3, 1, 2)"
        require(not pixels_first, "images", _described(images), channels_first)
        object.__setattr__(self, "images", images)  # this class is frozen
        object.__setattr__(self, "classes", tuple(map(str, self.classes)))
        labels = _checked_labels(self.labels, len(images), len(self.classes))
        object.__setattr__(self, "labels", labels)
        if self.names is not None:
            fits = len(self.names) == len(images)
            require(fits, "names", len(self.names), f"{len(images)}, one for each image")
            object.__setattr__(self, "names", tuple(map(str, self.names)))

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        """The name of an image; without names ``image`` and its index."""
        return f"image {index}" if self.names is None else self.names[index]

    def take(self, indices: np.ndarray) -> Self:
        """Return the samples at ``indices``, in that order."""
        names = self.names and tuple(self.names[i] for i in indices.tolist())
        return type(self)(self.images[indices], self.labels[indices], self.classes, names)


def _checked_labels(labels: np.ndarray, images: int, classes: int) -> np.ndarray:
    """Labels as int64. Smaller integers overflow in sums, and Paddle reads uint16 as bfloat16."""
    labels = np.asarray(labels)
    fits = labels.shape == (images,) and np.issubdtype(labels.dtype, np.integer)
    require(fits, "labels", _described(labels), f"integers [{images}], one for each image")
    found = (int(labels.min()), int(labels.max())) if len(labels) else (0, 0)
    fits = found[0] >= 0 and found[1] < classes
    of_classes = f"0 to {classes - 1}, since there are {classes} classes"
    require(fits, "labels", found, of_classes)
    return labels.astype(np.int64)


def _described(array: np.ndarray) -> str:
    return f"{array.dtype} {list(array.shape)}"


@dataclass(frozen=True, eq=False)
class FileDataset:
    """Images in files: ``paths`` and ``labels`` int64 ``[N]`` into ``classes``.

    Raises UserError for labels that do not fit; lists of labels become arrays, `Path` objects
    strings, and ``classes`` a tuple of texts. ``copies`` are optional decoded images that are read
    instead; see `cache_images`. ``root`` is the common folder of all paths, with a separator at its
    end: after a move the images are recognised by their paths below it.
    """

    paths: Sequence[str]
    labels: np.ndarray
    classes: tuple[str, ...]
    copies: Copies | None = None
    root: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(map(str, self.classes)))  # this class is frozen
        labels = _checked_labels(self.labels, len(self.paths), len(self.classes))
        object.__setattr__(self, "labels", labels)
        object.__setattr__(self, "paths", [os.fspath(path) for path in self.paths])

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        """The path of an image below ``root``."""
        return self.paths[index].removeprefix(self.root)

    def take(self, indices: np.ndarray) -> Self:
        """Return the samples at ``indices``, in that order."""
        paths = [self.paths[i] for i in indices.tolist()]
        copies = self.copies and self.copies.take(indices)
        return replace(self, paths=paths, labels=self.labels[indices], copies=copies)


Dataset = ArrayDataset | FileDataset


class Samples(Protocol):
    """The common interface of both kinds of data sets."""

    @property
    def labels(self) -> np.ndarray: ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    def __len__(self) -> int: ...

    def take(self, indices: np.ndarray) -> Self: ...


D = TypeVar("D", bound=Samples)


def split(dataset: D, fraction: float, seed: int = 0) -> tuple[D, D]:
    """Hold out ``fraction`` of the samples: ``(train, held_out)``, both in the data set's order.

    Stratified by class; a class with two or more samples has at least one on each side. The split
    depends on the labels and ``seed`` alone.
    """
    if not 0 < fraction < 1:
        raise UserError(f"a validation fraction lies between 0 and 1, received {fraction}")
    if len(dataset) < 2:
        raise UserError(f"{len(dataset)} images cannot be split in two")
    counts = np.bincount(dataset.labels, minlength=len(dataset.classes))
    quotas = np.clip(
        _shares(counts, round(fraction * len(dataset))),
        np.minimum(counts // 2, 1),
        np.maximum(counts - 1, 0),
    )
    chosen = _choose(dataset.labels, quotas, seed)
    if not chosen.any() or chosen.all():
        raise UserError(f"{len(dataset)} images are too few to hold out {fraction} of them")
    return dataset.take(np.flatnonzero(~chosen)), dataset.take(np.flatnonzero(chosen))


def subset(dataset: D, n: int | None, seed: int = 0) -> D:
    """Keep ``n`` samples, stratified by class; all if ``n`` is None or there are no more."""
    if n is not None and n < 1:
        raise UserError(f"a limit on the number of images is 1 or more, received {n}")
    if n is None or n >= len(dataset):
        return dataset
    quotas = _shares(np.bincount(dataset.labels, minlength=len(dataset.classes)), n)
    return dataset.take(np.flatnonzero(_choose(dataset.labels, quotas, seed)))


def _shares(counts: np.ndarray, total: int) -> np.ndarray:
    """Divide ``total`` among classes in proportion to ``counts``, by largest remainders."""
    exact = counts * (total / counts.sum())
    shares = np.floor(exact).astype(np.int64)
    remaining = total - shares.sum()
    shares[np.argsort(shares - exact, kind="stable")[:remaining]] += 1
    return shares


def _choose(labels: np.ndarray, quotas: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    chosen = np.zeros(len(labels), bool)
    order = rng.permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    first = np.searchsorted(labels[by_class], np.arange(len(quotas)))
    for start, quota in zip(first, quotas, strict=True):
        chosen[by_class[start : start + quota]] = True
    return chosen
