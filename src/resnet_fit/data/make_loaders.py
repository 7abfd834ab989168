"""Builds the loaders of a config."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from resnet_fit import parallel
from resnet_fit.config.operations import Entry
from resnet_fit.data.cache import cache_images
from resnet_fit.data.dataset import ArrayDataset
from resnet_fit.data.datasets.data import Dataset, Parts
from resnet_fit.data.dealing import Dealer
from resnet_fit.data.loading import ArrayLoader, FileLoader, Loader
from resnet_fit.data.mixing import Mix
from resnet_fit.data.record import Contents, DataRecord
from resnet_fit.data.resizing import Sizes, progressive
from resnet_fit.data.statistics import statistics
from resnet_fit.data.transforms import OnBadImage
from resnet_fit.errors import UserError

if TYPE_CHECKING:
    from resnet_fit.runs.config import Config

# Images of `Loaders.sample`.
SAMPLE = 500

Statistics = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class Loaders:
    """Loaders for training, for the evaluation of each epoch, and for an optional test set.

    Attributes:
        record: the description of the data, for ``data.json``.
        dealer: distributes the batches of all loaders over the processes.
        full_size: final pixels a side of progressive resizing; None without it.
        sample: some training images, spread over the data set, augmented, at their full size.
    """

    train: Loader
    evaluation: Loader
    test: Loader | None
    record: DataRecord
    dealer: Dealer
    full_size: int | None
    sample: Callable[[], np.ndarray]

    @property
    def classes(self) -> tuple[str, ...]:
        return self.record.contents.classes

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of an image as the network sees it in evaluation."""
        return self.record.image_shape

    def close(self) -> None:
        """End idle worker processes."""
        for loader in (self.train, self.evaluation, self.test):
            if loader is not None:
                loader.close()


def make_loaders(
    config: Config,
    recorded: DataRecord | None = None,
    parts: Parts | None = None,
    dealer: Dealer | None = None,
) -> Loaders:
    """Open a config's data, split it, and bind its augmentation.

    Args:
        config: the experiment.
        recorded: the record of a resumed run. Its mean and deviation are used, since another
            version of a decoder could give other values.
        parts: the data, if they are open already.
        dealer: distributes the batches, if several processes train together.

    Raises:
        UserError: the data are missing, invalid, or not those of ``recorded``; an operation does
            not fit them; or the disk is too small for the image cache.
    """
    train, evaluation, test = open_parts(config) if parts is None else parts
    by_content = _of_files(config, "compare", "content") == "content"
    contents = Contents.of(train, evaluation, test, by_content)
    if recorded is not None:
        _require_same(config, recorded.contents.difference(contents))
    _warn_if_balanced_already(config, train)
    on_bad_image = _of_files(config, "on_bad_image", "error")
    train = _cached(config, train, on_bad_image)
    evaluation = _cached(config, evaluation, "error")  # evaluation never skips images
    built = {stage: config.augmentation.built(config.data, stage) for stage in ("train", "eval")}
    if recorded is None:
        mean, std = _normalisation(built, train, on_bad_image)
    else:
        mean, std = recorded.normalisation
    bound = {stage: _with_numbers(operations, mean, std) for stage, operations in built.items()}

    mix = config.augmentation.mix and Mix(**config.augmentation.mix.model_dump())
    full_size = _full_size(config, train, bound["train"], on_bad_image)
    sizes = sizes_by_epoch(config, full_size)

    workers = _of_files(config, "workers", None)
    dealer = dealer or Dealer()

    def loader(dataset: Dataset, stage: str) -> Loader:
        training = stage == "train"
        size = config.data.batch_size if training else config.data.eval_batch_size
        options: dict[str, Any] = {
            "shuffle": training,
            "seed": config.training.seed,
            "drop_last": training and config.data.drop_last,
            "on_device": config.augmentation.on_device is True,
            "dealer": dealer,
            "group": _group(config, training, dealer.size),
        }
        if training:
            options |= {"sampler": config.data.order(), "mix": mix, "sizes": sizes}
            options["on_bad_image"] = on_bad_image
        return _loader(dataset, size, bound[stage], workers, **options)

    def sample() -> np.ndarray:
        rows = np.linspace(0, len(train) - 1, min(len(train), SAMPLE)).astype(int)
        some = train.take(rows)
        images = _loader(some, len(rows), bound["train"], workers=0, on_bad_image=on_bad_image)
        return next(iter(images))[0]

    record = DataRecord(
        contents=contents,
        image_shape=_image_shape_in_evaluation(evaluation, bound["eval"]),
        stored_shape=train.images.shape[1:] if isinstance(train, ArrayDataset) else None,
        preprocessing=_listed(config.augmentation.eval, bound["eval"]),
        mean=mean,
        std=std,
    )
    if recorded is not None:
        _require_same(config, recorded.difference(record))
    return Loaders(
        train=loader(train, "train"),
        evaluation=loader(evaluation, "eval"),
        test=None if test is None else loader(test, "eval"),
        record=record,
        dealer=dealer,
        full_size=full_size,
        sample=sample,
    )


def _group(config: Config, training: bool, processes: int) -> int:
    """How many batches form a group, which is distributed over the processes."""
    if processes == 1:
        return 1
    return config.training.accumulate if training else processes


def look(config: Config) -> tuple[int, tuple[int, int, int]]:
    """The number of classes of a config's data, and ``(C, H, W)`` of an image in evaluation.

    One image is read.

    Raises:
        UserError: the data are missing or invalid.
    """
    evaluation = open_parts(config).evaluation
    built = config.augmentation.built(config.data, "eval")
    bound = _with_numbers(built, (0.0,), (1.0,))  # these values do not matter for the shape
    return len(evaluation.classes), _image_shape_in_evaluation(evaluation, bound)


def _require_same(config: Config, difference: str | None) -> None:
    if difference is None:
        return
    place = _of_files(config, "path", None) or config.data.part_name
    if not parallel.is_first():
        raise UserError(f"{place}: not the data of the first process: {difference}")
    raise UserError(
        f"{place}: not the data this run was trained on: {difference}; restore them, or start "
        "a new run with model.weights set to this one's folder"
    )


def _loader(
    dataset: Dataset,
    batch_size: int,
    bound: list[Any],
    workers: int | None,
    on_bad_image: OnBadImage = "error",
    **options: Any,
) -> Loader:
    """The loader for this kind of data; images in memory need no workers, and none is bad."""
    if isinstance(dataset, ArrayDataset):
        return ArrayLoader(dataset, batch_size, bound, **options)
    options |= {"workers": workers, "on_bad_image": on_bad_image}
    return FileLoader(dataset, batch_size, bound, **options)


def open_parts(config: Config) -> Parts:
    """The parts of a config's data.

    Raises:
        UserError: the data are missing or invalid.
    """
    try:
        return config.data.open()
    except UserError as error:
        if getattr(config.data, "path", None) is None:  # the message has the place
            raise
        raise UserError(f"data.path: {error}") from None


def _of_files(config: Config, setting: str, otherwise: Any) -> Any:
    """A setting that only data sets of image files have; otherwise the value ``otherwise``."""
    return getattr(config.data, setting, otherwise)


def _cached(config: Config, dataset: Dataset, on_bad_image: OnBadImage) -> Dataset:
    """The data set with decoded copies of its images, if the config has a cache."""
    cache = _of_files(config, "cache", None)
    if cache is None or isinstance(dataset, ArrayDataset):
        return dataset
    return cache_images(
        dataset,
        cache.shorter_side,
        cache.path,
        interpolation=cache.interpolation,
        workers=_of_files(config, "workers", None),
        on_bad_image=on_bad_image,
    )


def _normalisation(
    built: Mapping[str, Sequence[Any]], train: Dataset, on_bad_image: OnBadImage
) -> Statistics | tuple[None, None]:
    """Mean and deviation of the training set, if a ``normalize`` has no numbers of its own."""
    if any(_wants_numbers(operation) for stage in built.values() for operation in stage):
        mean, std = statistics(train, on_bad_image)
        if 0 in std:
            raise UserError(
                f"augmentation: normalize: channel {std.index(0)} has one value in all training "
                "images; give normalize a mean and a std of your own"
            )
        return mean, std
    return None, None


def _with_numbers(operations: Sequence[Any], mean: Any, std: Any) -> list[Any]:
    """The operations; a ``normalize`` without numbers gets ``mean`` and ``std``."""
    return [
        dataclasses.replace(op, mean=mean, std=std) if _wants_numbers(op) else op
        for op in operations
    ]


def _wants_numbers(operation: Any) -> bool:
    return getattr(operation, "mean", ()) is None


def _listed(entries: Sequence[Entry], bound: Sequence[Any]) -> tuple[Any, ...]:
    """A config's list of operations, with every value that its options finally have."""
    return tuple(
        {name: {option: _plain(getattr(operation, option)) for option in options}}
        for entry, operation in zip(entries, bound, strict=True)
        for name, options in entry.items()
    )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


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


def _full_size(
    config: Config, train: Dataset, bound: list[Any], on_bad_image: OnBadImage
) -> int | None:
    """Final pixels a side of progressive resizing; None without it."""
    wanted = config.augmentation.progressive
    if wanted is None:
        return None
    loader = _loader(train, 1, bound, workers=0, on_bad_image=on_bad_image)
    _, full, width = _image_shape(loader)
    if full != width:
        raise UserError(
            f"augmentation.progressive: received training images of {width}x{full} pixels, "
            "expected square ones; put an operation that makes them square into augmentation.train"
        )
    if wanted.start >= full:
        raise UserError(
            f"augmentation.progressive.start: received {wanted.start}, expected less than the full "
            f"size of training images, {full} pixels a side"
        )
    return full


def sizes_by_epoch(config: Config, full_size: int | None) -> Sizes | None:
    """The sizes of progressive resizing over a config's epochs, or None without it."""
    wanted = config.augmentation.progressive
    if wanted is None or full_size is None:
        return None
    epochs = max(1.0, wanted.until * config.training.epochs)
    return progressive(wanted.start, full_size, epochs, wanted.step)


def _image_shape_in_evaluation(evaluation: Dataset, bound: list[Any]) -> tuple[int, int, int]:
    return _image_shape(_loader(evaluation.take(np.arange(1)), 1, bound, workers=0))


def _image_shape(loader: Loader) -> tuple[int, int, int]:
    images = next(iter(loader))[0]
    channels, height, width = images.shape[1:]
    return channels, height, width
