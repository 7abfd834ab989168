"""Data sets in memory or in files, their splits and subsets; CIFAR-10 and -100, and digits."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import sys
import tarfile
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np

from resnet_fit.data.paths import Copies, Paths
from resnet_fit.errors import UserError, require, suggest
from resnet_fit.files import may_write
from resnet_fit.home import expand, home
from resnet_fit.restricted_pickle import PickledArray, Unpickler

ENVIRONMENT = "RESNET_FIT_DATA"
OFFLINE_CONFIG = "configs/resnet18_digits.yaml"
TIMEOUT_SECONDS = 20


@dataclass(frozen=True, eq=False)
class ArrayDataset:
    """Images in memory: uint8 ``[N, C, H, W]``, and ``labels`` int64 ``[N]`` into ``classes``.

    Raises UserError for arrays that are not such; lists become arrays.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        images, labels = np.asarray(self.images), np.asarray(self.labels)
        fits = images.ndim == 4 and images.dtype == np.uint8
        require(fits, "images", _described(images), "uint8 grey levels of 0 to 255, [N, C, H, W]")
        pixels_first = images.shape[3] in (1, 3) and images.shape[1] not in (1, 3)
        channels_first = "channels before pixels, as images.transpose(0, 3, 1, 2) has them"
        require(not pixels_first, "images", _described(images), channels_first)
        fits = labels.shape == images.shape[:1] and np.issubdtype(labels.dtype, np.integer)
        require(fits, "labels", _described(labels), f"integers [{len(images)}], one for each image")
        found = (int(labels.min()), int(labels.max())) if len(labels) else (0, 0)
        fits = found[0] >= 0 and found[1] < len(self.classes)
        of_classes = f"0 to {len(self.classes) - 1}, as there are {len(self.classes)} classes"
        require(fits, "labels", found, of_classes)
        for name, array in (("images", images), ("labels", labels)):
            object.__setattr__(self, name, array)  # this class is frozen

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: np.ndarray) -> ArrayDataset:
        """Return the samples at ``indices``, in that order."""
        return ArrayDataset(self.images[indices], self.labels[indices], self.classes)


def _described(array: np.ndarray) -> str:
    return f"{array.dtype} {list(array.shape)}"


@dataclass(frozen=True, eq=False)
class FileDataset:
    """Images in files: ``paths`` and ``labels`` int64 ``[N]`` into ``classes``.

    ``copies`` are decoded ones to read instead, where there are any; see `cache_images`.
    """

    paths: Sequence[str]
    labels: np.ndarray
    classes: tuple[str, ...]
    copies: Copies | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: np.ndarray) -> FileDataset:
        """Return the samples at ``indices``, in that order."""
        paths = Paths.of(self.paths).take(indices)
        copies = self.copies and self.copies.take(indices)
        return FileDataset(paths, self.labels[indices], self.classes, copies)


Dataset = TypeVar("Dataset", ArrayDataset, FileDataset)

# --- parts of a data set --------------------------------------------------------------


def split(dataset: Dataset, fraction: float, seed: int = 0) -> tuple[Dataset, Dataset]:
    """Hold out ``fraction`` of the samples: ``(train, held_out)``, both in the data set's order.

    Stratified: each class gives its share, and at least one sample to either side if it has two.
    The choice depends on the labels and ``seed`` alone.
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


def subset(dataset: Dataset, n: int | None, seed: int = 0) -> Dataset:
    """Keep ``n`` samples, each class its share; all of them if there are no more, or for None."""
    if n is not None and n < 1:
        raise UserError(f"a limit on the number of images is 1 or more, received {n}")
    if n is None or n >= len(dataset):
        return dataset
    quotas = _shares(np.bincount(dataset.labels, minlength=len(dataset.classes)), n)
    return dataset.take(np.flatnonzero(_choose(dataset.labels, quotas, seed)))


def _shares(counts: np.ndarray, total: int) -> np.ndarray:
    """Divide ``total`` among classes in proportion to ``counts``, by the largest remainder."""
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


# --- digits ---------------------------------------------------------------------------


def digits() -> tuple[ArrayDataset, ArrayDataset]:
    """Return scikit-learn's handwritten digits, ``[1, 8, 8]``: 1,437 to train on, 360 to test.

    The levels 0..16 are scaled to 0..255. The split is stratified and always the same.
    """
    from sklearn.datasets import load_digits

    raw = load_digits()
    images = np.rint(raw.images * (255 / 16)).astype(np.uint8)[:, None]
    labels = raw.target.astype(np.int64)
    return split(ArrayDataset(images, labels, tuple(str(d) for d in range(10))), 360 / 1797, seed=0)


# --- CIFAR ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Cifar:
    """Where a CIFAR set comes from and how its files are laid out (Krizhevsky 2009)."""

    name: str
    archive: str
    folder: str
    md5: str
    train_files: tuple[str, ...]
    test_files: tuple[str, ...]
    labels: str
    meta_file: str
    class_names: str
    classes: int
    urls: tuple[str, ...]
    counts: tuple[int, int] = (50_000, 10_000)


def _urls(archive: str) -> tuple[str, ...]:
    mirrors = ("https://dataset.bj.bcebos.com/cifar/", "https://www.cs.toronto.edu/~kriz/")
    return tuple(mirror + archive for mirror in mirrors)


CIFAR10 = Cifar(
    name="cifar10",
    archive="cifar-10-python.tar.gz",
    folder="cifar-10-batches-py",
    md5="c58f30108f718f92721af3b95e74349a",
    train_files=tuple(f"data_batch_{i}" for i in range(1, 6)),
    test_files=("test_batch",),
    labels="labels",
    meta_file="batches.meta",
    class_names="label_names",
    classes=10,
    urls=_urls("cifar-10-python.tar.gz"),
)
CIFAR100 = Cifar(
    name="cifar100",
    archive="cifar-100-python.tar.gz",
    folder="cifar-100-python",
    md5="eb9058c3a382ffc7106e4002c42a8d85",
    train_files=("train",),
    test_files=("test",),
    labels="fine_labels",
    meta_file="meta",
    class_names="fine_label_names",
    classes=100,
    urls=_urls("cifar-100-python.tar.gz"),
)


def cifar10(path: str | os.PathLike[str] | None = None) -> tuple[ArrayDataset, ArrayDataset]:
    """Return CIFAR-10 as ``(train, test)``: 50,000 and 10,000 images ``[3, 32, 32]``, 10 classes.

    ``path`` is the archive, its extracted folder, or a folder that holds either. Without it the
    folder named by ``RESNET_FIT_DATA`` is looked into, then Paddle's cache; else the archive is
    downloaded into the cache. Raises UserError when that fails or the files are not what they
    should be.
    """
    return _cifar(CIFAR10, path)


def cifar100(path: str | os.PathLike[str] | None = None) -> tuple[ArrayDataset, ArrayDataset]:
    """Return CIFAR-100 with its 100 fine classes; everything else as `cifar10`."""
    return _cifar(CIFAR100, path)


def _cifar(kind: Cifar, path: str | os.PathLike[str] | None) -> tuple[ArrayDataset, ArrayDataset]:
    place = _find(kind, path) or download(kind, _download_folder(kind))
    try:
        return _parse(kind, dict(_files(kind, place)))
    # Damaged bytes make tarfile, zlib and pickle raise almost anything; all of it means the same.
    except Exception as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        ours = path is None and place.parent == cache_folder()
        remedy = (
            "delete it and run again to download it"
            if ours
            else f"put {kind.archive} from {kind.urls[-1]} in its place"
        )
        raise UserError(
            f"{place}: damaged, or not the {kind.name} of its authors ({reason}); {remedy}"
        ) from error


def cache_folder() -> Path | None:
    """The folder in which paddle.vision, too, keeps CIFAR; None for a user without a home."""
    folder_ = home()
    return None if folder_ is None else folder_ / ".cache" / "paddle" / "dataset" / "cifar"


def _download_folder(kind: Cifar) -> Path:
    folder_ = cache_folder()
    if folder_ is None:
        raise UserError(
            f"{kind.name} was not found, and there is no home folder to download it to (HOME is "
            f"not set): put {kind.archive} into a folder, and name that in data.path or in the "
            f"environment variable {ENVIRONMENT}"
        )
    if not may_write():
        raise UserError(
            f"{kind.name} is not on this machine yet: a run downloads it to {folder_}, and a dry "
            "run downloads nothing"
        )
    return folder_


def _find(kind: Cifar, path: str | os.PathLike[str] | None) -> Path | None:
    if path is not None:
        given = expand(path)
        require_existing(given)
        if given.is_file():
            return given
        found = _inside(kind, given)
        if found is None:
            raise UserError(
                f"{given}: holds neither {kind.archive} nor {kind.folder}/ with "
                f"{kind.train_files[0]}"
            )
        return found
    named = os.environ.get(ENVIRONMENT)
    for folder_ in (expand(named) if named else None, cache_folder()):
        if folder_ is not None and (found := _inside(kind, folder_)):
            return found
    return None


def _inside(kind: Cifar, folder_: Path) -> Path | None:
    for candidate in (folder_, folder_ / kind.folder):
        needed = (candidate / kind.train_files[0], candidate / kind.meta_file)
        if all(map(os.path.isfile, needed)):  # false for what may not be looked at
            return candidate
    archive = folder_ / kind.archive
    return archive if os.path.isfile(archive) else None


def _files(kind: Cifar, place: Path) -> Iterator[tuple[str, Any]]:
    """Yield the name and content of each of the set's files, one at a time: they are 30 MB each."""
    wanted = {*kind.train_files, *kind.test_files, kind.meta_file}
    if place.is_dir():
        for name in sorted(wanted):
            if (place / name).is_file():
                with open(place / name, "rb") as file:
                    yield name, _unpickle(file)
        return
    with gzip.open(place) as unzipped:
        with tarfile.open(fileobj=unzipped, mode="r:") as archive:
            for member in archive:
                name = member.name.rpartition("/")[2]
                if member.isfile() and name in wanted:
                    content = archive.extractfile(member)
                    assert content is not None  # it is a regular file
                    yield name, _unpickle(io.BytesIO(content.read()))
        while unzipped.read(1 << 20):  # its checksum is compared at the end
            pass


def _parse(kind: Cifar, files: Mapping[str, dict[str, Any]]) -> tuple[ArrayDataset, ArrayDataset]:
    missing = [n for n in (*kind.train_files, *kind.test_files, kind.meta_file) if n not in files]
    if missing:
        raise ValueError(f"without {', '.join(missing)}")
    classes = tuple(_text(name) for name in files[kind.meta_file][kind.class_names])
    if len(classes) != kind.classes:
        raise ValueError(f"{len(classes)} class names, expected {kind.classes}")

    def part(names: tuple[str, ...], count: int) -> ArrayDataset:
        images = np.concatenate([files[n]["data"] for n in names])
        labels = np.concatenate([files[n][kind.labels] for n in names]).astype(np.int64)
        if images.dtype != np.uint8 or images.shape != (count, 3072) or labels.shape != (count,):
            raise ValueError(
                f"{images.dtype} {images.shape} and {labels.shape} labels, expected {count} images"
            )
        if labels.min() < 0 or labels.max() >= kind.classes:
            raise ValueError(
                f"labels {labels.min()}..{labels.max()}, expected 0..{kind.classes - 1}"
            )
        return ArrayDataset(images.reshape(count, 3, 32, 32), labels, classes)

    return part(kind.train_files, kind.counts[0]), part(kind.test_files, kind.counts[1])


def _unpickle(file: IO[bytes]) -> dict[str, Any]:
    content = Unpickler(file).load()
    if not isinstance(content, dict):
        raise ValueError(f"holds a {type(content).__name__}, expected a dictionary")
    return {
        _text(key): value.value if isinstance(value, PickledArray) else value
        for key, value in content.items()
    }


def _text(value: bytes | str) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else value


# --- download -------------------------------------------------------------------------


def download(kind: Cifar, folder_: Path) -> Path:
    """Fetch the archive into ``folder_``, checksum verified; the file is whole or not there."""
    target = folder_ / kind.archive
    reasons = []
    for url in kind.urls:
        try:
            _fetch(url, target, kind.md5)
            return target
        except (OSError, HTTPException) as error:
            reasons.append(f"{url}: {getattr(error, 'reason', None) or error}")
    wish = Path(os.environ[ENVIRONMENT]) / kind.archive if os.environ.get(ENVIRONMENT) else target
    raise UserError(
        f"{kind.name} is not on this machine and could not be downloaded ({'; '.join(reasons)}): "
        f"put {kind.archive} at {wish}, or run {OFFLINE_CONFIG}, which needs no download"
    )


def _fetch(url: str, target: Path, md5: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.md5(usedforsecurity=False)
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with (
            os.fdopen(handle, "wb") as file,
            urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response,
        ):
            total = int(response.headers.get("Content-Length") or 0)
            with _progress(target.name, total) as advance:
                while block := response.read(1 << 20):
                    file.write(block)
                    digest.update(block)
                    advance(len(block))
        if digest.hexdigest() != md5:
            raise OSError(f"md5 {digest.hexdigest()}, expected {md5}")
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    finally:
        Path(temporary).unlink(missing_ok=True)


@contextmanager
def _progress(name: str, total: int) -> Iterator[Callable[[int], None]]:
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        "{task.description}",
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=total or None)
        yield lambda n: bar.advance(task, n)


def require_existing(path: Path) -> None:
    """Raise a UserError that suggests the nearest name, if there is nothing at ``path``."""
    if path.exists():
        return
    nearest = next((p for p in path.parents if p.exists()), Path("/"))
    wanted = path.relative_to(nearest).parts[0] if nearest in path.parents else path.name
    names = sorted(p.name for p in nearest.iterdir()) if nearest.is_dir() else []
    raise UserError(f"{path}: no such file or folder.{suggest(wanted, names)}")
