"""Mean and standard deviation of a data set's pixels, for normalisation."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from resnet_fit.data.dataset import Dataset, FileDataset, subset
from resnet_fit.data.transforms import BadImage, OnBadImage, Resize, load
from resnet_fit.errors import UserError

# How many files are read, and the shorter side in pixels that they are shrunk to.
FILES = 1000
SIZE = 64


def statistics(
    dataset: Dataset, on_bad_image: OnBadImage = "error"
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return each channel's mean and standard deviation over all pixels, in units of 0..1.

    Of image files at most 1,000 are read, stratified by class, and shrunk to a shorter side of 64
    pixels; an unreadable file raises BadImage or is skipped.
    """
    if isinstance(dataset, FileDataset):
        pieces = _thumbnails(subset(dataset, FILES), on_bad_image)
    else:
        pieces = (dataset.images[i : i + 1000].swapaxes(0, 1) for i in range(0, len(dataset), 1000))
    counts = sum(
        np.array([np.bincount(channel.reshape(-1), minlength=256) for channel in piece])
        for piece in pieces
    )
    if not np.any(counts):
        raise UserError("no readable image to take a mean and standard deviation of")
    return mean_and_std(np.asarray(counts))


def mean_and_std(counts: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return each channel's mean and standard deviation, in units of 0..1.

    ``counts`` ``[C, 256]`` says how often each value occurs.
    """
    levels = np.arange(256)
    share = counts / np.sum(counts, axis=1, keepdims=True)
    mean = share @ levels
    std = np.sqrt((share * (levels - mean[:, None]) ** 2).sum(1))
    return tuple((mean / 255).tolist()), tuple((std / 255).tolist())


def _thumbnails(dataset: FileDataset, on_bad_image: OnBadImage) -> Iterator[np.ndarray]:
    for path in dataset.paths:
        try:
            image = load(path, [Resize(SIZE)], np.random.default_rng(0))
        except BadImage:
            if on_bad_image == "error":
                raise
            continue
        yield np.asarray(image).transpose(2, 0, 1)
