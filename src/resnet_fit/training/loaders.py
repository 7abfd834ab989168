"""The data of a config, as loaders for `paddle.Model`."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from resnet_fit.config import operations, registry
from resnet_fit.config.schema import Config
from resnet_fit.data import sampling, sources
from resnet_fit.data.cache import cache_images
from resnet_fit.data.image_folder import folder
from resnet_fit.data.loading import ArrayLoader, FileLoader, Loader, statistics
from resnet_fit.data.mixing import Mix
from resnet_fit.data.resizing import Sizes, progressive
from resnet_fit.data.sampling import Sampler
from resnet_fit.data.sources import ArrayDataset, FileDataset
from resnet_fit.errors import UserError

Dataset = ArrayDataset | FileDataset
Statistics = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class Loaders:
    """Batches to train on, to judge epochs by and, where a validation part does that, to test on.

    ``image_shape`` is ``(C, H, W)`` of an image as the network sees it in evaluation.
    """

    train: Loader
    evaluation: Loader
    test: Loader | None
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]

    def close(self) -> None:
        """End what waits for a next epoch."""
        for loader in (self.train, self.evaluation, self.test):
            if loader is not None:
                loader.close()


def make_loaders(config: Config) -> Loaders:
    """Open a config's data, split it, and bind its augmentation.

    Raises:
        UserError: the data are not there or not right, an operation cannot take them, or there is
            no room for the image cache.
    """
    train, evaluation, test = open_datasets(config)
    _warn_if_balanced_already(config, train)
    train = _cached(config, train, config.data.on_bad_image)
    evaluation = _cached(config, evaluation, "error")  # which never skips
    # Once for both stages, and only where asked for.
    measured = functools.cache(lambda: statistics(train, config.data.on_bad_image))
    bound = {stage: _operations(config, stage, measured) for stage in ("train", "eval")}

    mix = config.augmentation.mix and Mix(**config.augmentation.mix.model_dump())
    sizes = _sizes(config, train, bound["train"])

    def loader(dataset: Dataset, stage: str, workers: int | None = config.data.workers) -> Loader:
        training = stage == "train"
        size = config.data.batch_size if training else config.data.eval_batch_size
        options: dict[str, Any] = {
            "shuffle": training,
            "seed": config.training.seed,
            "drop_last": training and config.data.drop_last,
            "on_device": config.augmentation.on_device,
        }
        if training:
            options |= {"sampler": _sampler(config), "mix": mix, "sizes": sizes}
            if isinstance(dataset, FileDataset):
                options["on_bad_image"] = config.data.on_bad_image
        return _loader(dataset, size, bound[stage], workers, **options)

    return Loaders(
        train=loader(train, "train"),
        evaluation=loader(evaluation, "eval"),
        test=None if test is None else loader(test, "eval"),
        classes=train.classes,
        image_shape=_image_shape(loader(evaluation.take(np.arange(1)), "eval", workers=0)),
    )


def _loader(
    dataset: Dataset, batch_size: int, bound: list[Any], workers: int | None, **options: Any
) -> Loader:
    """The loader for this kind of data; those in memory need no workers."""
    if isinstance(dataset, ArrayDataset):
        return ArrayLoader(dataset, batch_size, bound, **options)
    return FileLoader(dataset, batch_size, bound, workers=workers, **options)


def open_datasets(config: Config) -> tuple[Dataset, Dataset, Dataset | None]:
    """The parts to train on, to judge epochs by, and to test on at the end where that differs.

    Raises:
        UserError: the data are not there or not right.
    """
    try:
        return _open(config)
    except UserError as error:
        if config.data.path is None:  # found elsewhere, and the message says where
            raise
        raise UserError(f"data.path: {error}") from None


def _open(config: Config) -> tuple[Dataset, Dataset, Dataset | None]:
    data, limit = config.data, config.data.limit
    if data.name == "folder":
        assert data.path is not None
        files, held_out = folder(data.path, data.validation or None, data.split_seed)
        return sources.subset(files, limit), sources.subset(held_out, limit), None
    if data.name == "digits":
        train, test = sources.digits()
    else:
        train, test = {"cifar10": sources.cifar10, "cifar100": sources.cifar100}[data.name](
            data.path
        )
    if not data.validation:
        return sources.subset(train, limit), sources.subset(test, limit), None
    parts = (*sources.split(train, data.validation, data.split_seed), test)
    train, evaluation, test = (sources.subset(part, limit) for part in parts)
    return train, evaluation, test


def _cached(config: Config, dataset: Dataset, on_bad_image: Literal["error", "skip"]) -> Dataset:
    """The data set with decoded copies of its images, where the config asks for them."""
    cache = config.data.cache
    if cache is None or isinstance(dataset, ArrayDataset):
        return dataset
    return cache_images(
        dataset,
        cache.shorter_side,
        cache.path,
        workers=config.data.workers,
        on_bad_image=on_bad_image,
    )


def _operations(config: Config, stage: str, measured: Callable[[], Statistics]) -> list[Any]:
    """The operations of one stage; a bare ``normalize`` gets the training set's statistics."""
    bound = operations.build(getattr(config.augmentation, stage), registry(config))
    for i, operation in enumerate(bound):
        if getattr(operation, "mean", ()) is None:
            mean, std = measured()
            bound[i] = dataclasses.replace(operation, mean=mean, std=std)
    return bound


def _warn_if_balanced_already(config: Config, train: Dataset) -> None:
    counts = np.bincount(train.labels, minlength=len(train.classes))
    wanted = {
        "data.sampler": config.data.sampler == "balanced",
        "training.class_weights": config.training.class_weights == "balanced",
    }
    for key, is_wanted in wanted.items():
        if is_wanted and len(set(counts.tolist())) == 1:
            warnings.warn(
                f"{key}: balanced changes nothing, each class has {counts[0]} images", stacklevel=4
            )


def _sampler(config: Config) -> Sampler:
    sampler: Sampler = getattr(sampling, config.data.sampler)
    repeats = config.data.repeats
    return sampler if repeats == 1 else sampling.repeated(sampler, repeats)


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
