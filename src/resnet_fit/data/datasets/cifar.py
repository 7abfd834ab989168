"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009)."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from resnet_fit.config.registry import part
from resnet_fit.config.settings import Location
from resnet_fit.data.dataset import ArrayDataset
from resnet_fit.data.datasets.data import Data
from resnet_fit.downloads import download
from resnet_fit.errors import UserError
from resnet_fit.files import require_existing
from resnet_fit.home import expand, home
from resnet_fit.restricted_pickle import PickledArray, Unpickler

ENVIRONMENT = "RESNET_FIT_DATA"


@dataclass(frozen=True)
class Archive:
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


CIFAR10 = Archive(
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


CIFAR100 = Archive(
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

    ``path`` is the archive, its extracted folder, or a folder that contains either. Without it, the
    folder named by ``RESNET_FIT_DATA`` is searched, then Paddle's cache; if neither has it, the
    archive is downloaded into the cache. Raises UserError if the download fails or the files are
    damaged.
    """
    return _cifar(CIFAR10, path)


def cifar100(path: str | os.PathLike[str] | None = None) -> tuple[ArrayDataset, ArrayDataset]:
    """Return CIFAR-100 with its 100 fine classes; everything else as `cifar10`."""
    return _cifar(CIFAR100, path)


def _cifar(kind: Archive, path: str | os.PathLike[str] | None) -> tuple[ArrayDataset, ArrayDataset]:
    place = _find(kind, path) or _download(kind)
    try:
        return _parse(kind, dict(_files(kind, place)))
    # Damaged bytes make tarfile, zlib and pickle raise almost any exception.
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
    """The folder where paddle.vision also keeps CIFAR; None for a user without a home folder."""
    folder = home()
    return None if folder is None else folder / ".cache" / "paddle" / "dataset" / "cifar"


def _download(kind: Archive) -> Path:
    """Download the archive into the cache."""
    folder = cache_folder()
    if folder is None:
        raise UserError(
            f"{kind.name} was not found, and there is no home folder to download it to (HOME is "
            f"not set): put {kind.archive} into a folder, and name that in data.path or in the "
            f"environment variable {ENVIRONMENT}"
        )
    target = folder / kind.archive
    wish = Path(os.environ[ENVIRONMENT]) / kind.archive if os.environ.get(ENVIRONMENT) else target
    remedy = (
        f"put {kind.archive} at {wish}, or run resnet-fit --config resnet18_digits, which needs no "
        "download"
    )
    download(kind.name, kind.urls, target, kind.md5, remedy)
    return target


def _find(kind: Archive, path: str | os.PathLike[str] | None) -> Path | None:
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
    if named and not expand(named).is_dir():
        raise UserError(f"{ENVIRONMENT}: received {named}, expected a folder that exists")
    for folder in (expand(named) if named else None, cache_folder()):
        if folder is not None and (found := _inside(kind, folder)):
            return found
    return None


def _inside(kind: Archive, folder: Path) -> Path | None:
    for candidate in (folder, folder / kind.folder):
        needed = (candidate / kind.train_files[0], candidate / kind.meta_file)
        if all(map(os.path.isfile, needed)):  # False without permission, where Path.is_file raises
            return candidate
    archive = folder / kind.archive
    return archive if os.path.isfile(archive) else None


def _files(kind: Archive, place: Path) -> Iterator[tuple[str, Any]]:
    """Yield name and content of each file, one at a time, since each has 30 MB."""
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
        while unzipped.read(1 << 20):  # gzip compares its checksum at the end of the file
            pass


def _parse(kind: Archive, files: Mapping[str, dict[str, Any]]) -> tuple[ArrayDataset, ArrayDataset]:
    missing = [n for n in (*kind.train_files, *kind.test_files, kind.meta_file) if n not in files]
    if missing:
        raise ValueError(f"without {', '.join(missing)}")
    classes = tuple(_text(name) for name in files[kind.meta_file][kind.class_names])
    if len(classes) != kind.classes:
        raise ValueError(f"{len(classes)} class names, expected {kind.classes}")

    def part(names: tuple[str, ...], count: int) -> ArrayDataset:
        images = np.concatenate([files[n]["data"] for n in names])
        labels = np.concatenate([files[n][kind.labels] for n in names])
        if images.dtype != np.uint8 or images.shape != (count, 3072):
            raise ValueError(f"{images.dtype} {images.shape}, expected {count} images")
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


@part("data", "cifar10")
class Cifar10(Data):
    """CIFAR-10: 50,000 images ``[3, 32, 32]`` to train on, 10,000 to test on, 10 classes.

    Args:
        path: the archive, its extracted folder, or a folder that contains either; by default the
            folder named by ``RESNET_FIT_DATA``, then Paddle's cache, where a download goes.
    """

    path: Location | None = None

    def load(self) -> tuple[ArrayDataset, ArrayDataset]:
        return cifar10(self.path)


@part("data", "cifar100")
class Cifar100(Cifar10):
    """CIFAR-100 with its 100 fine classes; otherwise as CIFAR-10."""

    def load(self) -> tuple[ArrayDataset, ArrayDataset]:
        return cifar100(self.path)
