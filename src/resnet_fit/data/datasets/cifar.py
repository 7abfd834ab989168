"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009)."""

from __future__ import annotations

import codecs
import gzip
import hashlib
import io
import os
import pickle
import sys
import tarfile
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np

from resnet_fit.config.registry import part
from resnet_fit.data.dataset import ArrayDataset
from resnet_fit.data.datasets.data import Data
from resnet_fit.errors import UserError
from resnet_fit.files import require_existing

ENVIRONMENT = "RESNET_FIT_DATA"


OFFLINE_CONFIG = "configs/resnet18_digits.yaml"


TIMEOUT_SECONDS = 20


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
    place = _find(kind, path) or download(kind, cache_folder())
    try:
        return _parse(kind, dict(_files(kind, place)))
    # Damaged bytes make tarfile, zlib and pickle raise almost anything; all of it means the same.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{place}: damaged, or not the {kind.name} of its authors ({reason}); "
            f"delete it and run again to download it, or get {kind.archive} from {kind.urls[-1]}"
        ) from error


def cache_folder() -> Path:
    """Return the folder in which paddle.vision, too, keeps CIFAR."""
    return Path.home() / ".cache" / "paddle" / "dataset" / "cifar"


def _find(kind: Cifar, path: str | os.PathLike[str] | None) -> Path | None:
    if path is not None:
        given = Path(path).expanduser()
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
    folders = [Path(os.environ[ENVIRONMENT]).expanduser()] if os.environ.get(ENVIRONMENT) else []
    for folder_ in (*folders, cache_folder()):
        if found := _inside(kind, folder_):
            return found
    return None


def _inside(kind: Cifar, folder_: Path) -> Path | None:
    for candidate in (folder_, folder_ / kind.folder):
        if (candidate / kind.train_files[0]).is_file() and (candidate / kind.meta_file).is_file():
            return candidate
    archive = folder_ / kind.archive
    return archive if archive.is_file() else None


def _files(kind: Cifar, place: Path) -> Iterator[tuple[str, Any]]:
    """Yield the name and content of each of the set's files, one at a time: they are 30 MB each."""
    wanted = {*kind.train_files, *kind.test_files, kind.meta_file}
    if place.is_dir():
        for name in sorted(wanted):
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


def _latin1(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"encoding {encoding!r} is not allowed")
    return codecs.encode(text, "latin1")


# What a dictionary of arrays, bytes and lists needs, under the names of Python 2's numpy, 1 and 2.
_RECONSTRUCT = np.empty(0).__reduce__()[0]


ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _latin1,
}


class _PlainUnpickler(pickle.Unpickler):
    """Reads arrays, bytes, strings, numbers and lists; nothing in a file can name code to run."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it asks for {module}.{name}, which is not allowed"
            ) from None


def _unpickle(file: IO[bytes]) -> dict[str, Any]:
    content = _PlainUnpickler(file, encoding="bytes").load()
    if not isinstance(content, dict):
        raise ValueError(f"holds a {type(content).__name__}, expected a dictionary")
    return {_text(key): value for key, value in content.items()}


def _text(value: bytes | str) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else value


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


@part("data", "cifar10")
class Cifar10Data(Data):
    """CIFAR-10: 50,000 images ``[3, 32, 32]`` to train on, 10,000 to test on, 10 classes.

    Args:
        path: the archive, the folder it extracts to, or a folder that holds either; by default the
            folder that ``RESNET_FIT_DATA`` names, then Paddle's cache, to which it is downloaded.
    """

    path: str | None = None
    archive: ClassVar[Cifar] = CIFAR10

    def load(self) -> tuple[ArrayDataset, ArrayDataset]:
        return _cifar(self.archive, self.path)


@part("data", "cifar100")
class Cifar100Data(Cifar10Data):
    """CIFAR-100: as CIFAR-10, with its 100 fine classes."""

    archive: ClassVar[Cifar] = CIFAR100
