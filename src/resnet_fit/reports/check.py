"""All data of an experiment gone through once, without training."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from rich.console import Console

from resnet_fit.data.dataset import ArrayDataset, Dataset
from resnet_fit.data.make_loaders import open_parts
from resnet_fit.data.statistics import mean_and_std
from resnet_fit.data.transforms import BadImage, decode
from resnet_fit.data.workers import worker_count
from resnet_fit.errors import RunFailed
from resnet_fit.files import readable
from resnet_fit.reports.table import print_table
from resnet_fit.runs.config import Config

# So many pairs of equal images are shown; all are counted.
SHOWN_DUPLICATES = 10


@dataclass
class Findings:
    """What one part of the data holds.

    Attributes:
        counts: images per class.
        sizes: how often each (width, height) occurs.
        levels: for each channel, how often each value occurs.
        names: of each image, by a digest of its pixels.
        bad: reason by path of every unreadable file.
    """

    counts: Counter[str] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    levels: np.ndarray | None = None
    names: dict[bytes, str] = field(default_factory=dict)
    repeated: int = 0
    bad: dict[str, str] = field(default_factory=dict)

    def add(self, label: str, name: str, pixels: np.ndarray) -> None:
        """Note an image ``[H, W, C]``."""
        height, width, channels = pixels.shape
        self.counts[label] += 1
        self.sizes[width, height] += 1
        levels = np.stack(
            [np.bincount(pixels[..., c].reshape(-1), minlength=256) for c in range(channels)]
        )
        self.levels = levels if self.levels is None else self.levels + levels
        digest = hashlib.blake2b(
            np.ascontiguousarray(pixels).tobytes() + repr(pixels.shape).encode(), digest_size=16
        ).digest()
        self.repeated += digest in self.names
        self.names.setdefault(digest, name)


def check_data(config: Config, console: Console) -> None:
    """Go through the data of a config and print what is found.

    Raises:
        UserError: the data are not there.
        RunFailed: there are unreadable files; all of them are printed first.
    """
    parts = dict(zip(("train", "evaluation", "test"), open_parts(config), strict=True))
    datasets = {name: data for name, data in parts.items() if data is not None}
    found = {name: examine(data) for name, data in datasets.items()}
    _print_classes(console, found, datasets["train"].classes)
    for name, findings in found.items():
        _say(console, f"{name}: {_describe(findings)}")
    for name, findings in list(found.items())[1:]:
        _print_duplicates(console, name, found["train"], findings)
    bad = {path: why for findings in found.values() for path, why in findings.bad.items()}
    for reason in bad.values():
        _say(console, f"unreadable: {reason}")
    if bad:
        raise RunFailed(f"unreadable images: {len(bad)}, listed above")


def examine(dataset: Dataset) -> Findings:
    """Read every image of one part."""
    findings = Findings()
    for index, (name, pixels) in enumerate(_images(dataset)):
        if isinstance(pixels, BadImage):
            findings.bad[name] = str(pixels)
        else:
            findings.add(dataset.classes[int(dataset.labels[index])], name, pixels)
    return findings


def _images(dataset: Dataset) -> Iterator[tuple[str, np.ndarray | BadImage]]:
    """Name and pixels ``[H, W, C]`` of every image, or what is wrong with it."""
    if isinstance(dataset, ArrayDataset):
        for index, image in enumerate(dataset.images):
            yield dataset.name(index), image.transpose(1, 2, 0)
        return
    with ThreadPoolExecutor(worker_count()) as pool:  # decoding releases Python's global lock
        for start in range(0, len(dataset), 64):  # so that few images are in memory at once
            paths = dataset.paths[start : start + 64]
            yield from zip(paths, pool.map(_pixels, paths), strict=True)


def _pixels(path: str) -> np.ndarray | BadImage:
    try:
        return np.asarray(decode(path))
    except BadImage as error:
        return error


def _print_classes(console: Console, found: dict[str, Findings], classes: tuple[str, ...]) -> None:
    rows = [
        (readable(name), *(f"{findings.counts[name]:,}" for findings in found.values()))
        for name in classes
    ]
    rows.append(("all", *(f"{findings.counts.total():,}" for findings in found.values())))
    header = ("class", *found)
    print_table(console, header, rows, numbers=range(1, len(header)))


def _describe(findings: Findings) -> str:
    if findings.levels is None:
        return "no readable image"
    widths, heights = (sorted(size[axis] for size in findings.sizes.elements()) for axis in (0, 1))
    if len(findings.sizes) == 1:
        sizes = f"all {widths[0]}x{heights[0]}"
    else:
        middle = len(widths) // 2
        sizes = (
            f"widths {widths[0]} to {widths[-1]} (median {widths[middle]}), "
            f"heights {heights[0]} to {heights[-1]} (median {heights[middle]})"
        )
    mean, std = (", ".join(f"{v:.4f}" for v in values) for values in mean_and_std(findings.levels))
    repeated = f"; {findings.repeated} images repeat an earlier one" if findings.repeated else ""
    return f"{sizes}; mean {mean}; standard deviation {std}{repeated}"


def _print_duplicates(console: Console, name: str, train: Findings, other: Findings) -> None:
    both = sorted(train.names.keys() & other.names.keys(), key=other.names.__getitem__)
    if not both:
        _say(console, f"train and {name} have no image in common")
        return
    _say(
        console, f"{len(both)} images are in train and in {name}, whose accuracy is then too high:"
    )
    for digest in both[:SHOWN_DUPLICATES]:
        _say(console, f"  {train.names[digest]} = {other.names[digest]}")
    if len(both) > SHOWN_DUPLICATES:
        _say(console, f"  and {len(both) - SHOWN_DUPLICATES} more")


def _say(console: Console, line: str) -> None:
    """Print a line with names in it, which may hold any bytes and what rich takes for markup."""
    console.print(readable(line), markup=False)
