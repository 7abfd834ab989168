"""The data of a config, as loaders for `paddle.Model`."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from resnet_fit.data.cache import cache_images
from resnet_fit.data.dataset import ArrayDataset, FileDataset
from resnet_fit.data.datasets.data import Dataset, Parts
from resnet_fit.data.loading import ArrayLoader, FileLoader, Loader, statistics
from resnet_fit.data.mixing import Mix
from resnet_fit.data.resizing import Sizes, progressive
from resnet_fit.errors import UserError

if TYPE_CHECKING:
    from resnet_fit.runs.config import Config

Statistics = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class Loaders:
    """Batches to train on, to judge epochs by and, where a validation part does that, to test on.

    Attributes:
        classes: names, by label.
        image_shape: ``(C, H, W)`` of an image as the network sees it in evaluation.
        preprocessing: the operations of evaluation, each with every option filled in.
    """

    train: Loader
    evaluation: Loader
    test: Loader | None
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    preprocessing: tuple[Any, ...]

    def close(self) -> None:
        """End what waits for a next epoch."""
        for loader in (self.train, self.evaluation, self.test):
            if loader is not None:
                loader.close()


def make_loaders(config: Config, parts: Parts | None = None) -> Loaders:
    """Open a config's data, split it, and bind its augmentation.

    Args:
        parts: the data, where they are at hand already.

    Raises:
        UserError: the data are not there or not right, an operation cannot take them, or there is
            no room for the image cache.
    """
    train, evaluation, test = open_parts(config) if parts is None else parts
    _warn_if_balanced_already(config, train)
    on_bad_image = getattr(config.data, "on_bad_image", "error")
    train = _cached(config, train, on_bad_image)
    evaluation = _cached(config, evaluation, "error")  # which never skips
    # Once for both stages, and only where asked for.
    measured = functools.cache(lambda: statistics(train, on_bad_image))
    bound = {stage: _operations(config, stage, measured) for stage in ("train", "eval")}

    mix = config.augmentation.mix and Mix(**config.augmentation.mix.model_dump())
    sizes = _sizes(config, train, bound["train"])
    workers = getattr(config.data, "workers", None)

    def loader(dataset: Dataset, stage: str, workers: int | None = workers) -> Loader:
        training = stage == "train"
        size = config.data.batch_size if training else config.data.eval_batch_size
        options: dict[str, Any] = {
            "shuffle": training,
            "seed": config.training.seed,
            "drop_last": training and config.data.drop_last,
            "on_device": config.augmentation.on_device,
        }
        if training:
            options |= {"sampler": config.data.order(), "mix": mix, "sizes": sizes}
            if isinstance(dataset, FileDataset):
                options["on_bad_image"] = on_bad_image
        return _loader(dataset, size, bound[stage], workers, **options)

    return Loaders(
        train=loader(train, "train"),
        evaluation=loader(evaluation, "eval"),
        test=None if test is None else loader(test, "eval"),
        classes=train.classes,
        image_shape=_image_shape(loader(evaluation.take(np.arange(1)), "eval", workers=0)),
        preprocessing=tuple(bound["eval"]),
    )


def open_parts(config: Config) -> Parts:
    """The parts of a config's data.

    Raises:
        UserError: the data are not there or not right.
    """
    try:
        return config.data.open()
    except UserError as error:
        if getattr(config.data, "path", None) is None:  # found elsewhere, the message says where
            raise
        raise UserError(f"data.path: {error}") from None


def _loader(
    dataset: Dataset, batch_size: int, bound: list[Any], workers: int | None, **options: Any
) -> Loader:
    """The loader for this kind of data; those in memory need no workers."""
    if isinstance(dataset, ArrayDataset):
        return ArrayLoader(dataset, batch_size, bound, **options)
    return FileLoader(dataset, batch_size, bound, workers=workers, **options)


def _cached(config: Config, dataset: Dataset, on_bad_image: Literal["error", "skip"]) -> Dataset:
    """The data set with decoded copies of its images, where the config asks for them."""
    cache = getattr(config.data, "cache", None)
    if cache is None or isinstance(dataset, ArrayDataset):
        return dataset
    return cache_images(
        dataset,
        cache.shorter_side,
        cache.path,
        workers=getattr(config.data, "workers", None),
        on_bad_image=on_bad_image,
    )


def _operations(config: Config, stage: str, measured: Callable[[], Statistics]) -> list[Any]:
    """The operations of one stage; a bare ``normalize`` gets the training set's statistics."""
    bound = config.augmentation.built(config.data, stage)
    for i, operation in enumerate(bound):
        if getattr(operation, "mean", ()) is None:
            mean, std = measured()
            bound[i] = dataclasses.replace(operation, mean=mean, std=std)
    return bound


def _warn_if_balanced_already(config: Config, train: Dataset) -> None:
    counts = np.bincount(train.labels, minlength=len(train.classes))
    wanted = {
        "data.sampler": config.data.sampler == "balanced",
        "loss.class_weights": config.loss.class_weights == "balanced",
    }
    for key, is_wanted in wanted.items():
        if is_wanted and len(set(counts.tolist())) == 1:
            warnings.warn(
                f"{key}: balanced changes nothing, each class has {counts[0]} images", stacklevel=4
            )


def _sizes(config: Config, train: Dataset, bound: list[Any]) -> Sizes | None:
    """The sizes of progressive resizing, up to what the training's images have without it."""
    wanted = config.augmentation.progressive
    if wanted is None:
        return None
    full = _image_shape(_loader(train.take(np.arange(1)), 1, bound, workers=0))[1]
    if wanted.start >= full:
        raise UserError(
            f"augmentation.progressive.start: received {wanted.start}, expected less than the "
            f"{full} pixels a side that the training's images have"
        )
    epochs = max(1.0, wanted.until * config.training.epochs)
    return progressive(wanted.start, full, epochs, wanted.step)


def _image_shape(loader: Loader) -> tuple[int, int, int]:
    images = next(iter(loader))[0]
    channels, height, width = images.shape[1:]
    return channels, height, width
