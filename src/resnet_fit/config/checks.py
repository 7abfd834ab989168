"""What a schema cannot say: settings that are valid alone and wrong together.

Every check here needs neither data nor Paddle; those that do are made before the first epoch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from resnet_fit.config.problems import Problem
from resnet_fit.config.schema import Adam, Config, DenseNet, MultiStep, OneCycle
from resnet_fit.data.transforms import Geometric
from resnet_fit.errors import UserError
from resnet_fit.networks.depth import resolve_dense_depth, resolve_depth


def check(config: Config) -> Iterator[Problem]:
    """Every problem between settings."""
    yield from _model(config)
    yield from _schedule(config)
    yield from _data(config)
    yield from _optimizer(config)
    yield from _training(config)
    yield from _monitor(config)


def _model(config: Config) -> Iterator[Problem]:
    model = config.model
    try:
        if isinstance(model, DenseNet):
            resolve_dense_depth(model.depth, model.stem)
            return
        block, _ = resolve_depth(model.depth, model.stem, model.block)
    except UserError as error:
        yield Problem(("model", "depth"), str(error))
        return
    if model.stride_on == "1x1" and block == "basic":
        yield Problem(
            ("model", "stride_on"),
            f"1x1 needs bottleneck blocks; depth {model.depth} has basic ones",
        )
    if model.zero_init_residual and model.shortcut == "none":
        yield Problem(
            ("model", "zero_init_residual"), "needs shortcuts: without, every output would be zero"
        )
    if model.stochastic_depth and model.shortcut == "none":
        yield Problem(("model", "stochastic_depth"), "needs shortcuts to leave blocks out around")


def _schedule(config: Config) -> Iterator[Problem]:
    schedule, epochs = config.schedule, config.training.epochs
    if schedule.warmup_epochs >= epochs:
        yield Problem(
            ("schedule", "warmup_epochs"),
            f"expected less than training.epochs ({epochs}), received {schedule.warmup_epochs:g}",
        )
    if isinstance(schedule, OneCycle) and schedule.warmup_epochs:
        yield Problem(
            ("schedule", "warmup_epochs"),
            "one_cycle rises by itself: set schedule.peak, and leave warmup_epochs out",
        )
    if isinstance(schedule, MultiStep) and schedule.at_epochs != sorted(set(schedule.at_epochs)):
        yield Problem(
            ("schedule", "at_epochs"),
            f"expected epochs in rising order, received {schedule.at_epochs}",
        )


def _data(config: Config) -> Iterator[Problem]:
    data = config.data
    if data.name == "folder" and data.path is None:
        yield Problem(("data", "path"), "required for data.name: folder, but not given")
    if data.name == "digits" and data.path is not None:
        yield Problem(("data", "path"), "the digits come with scikit-learn: leave data.path out")
    if data.name != "folder" and data.workers:
        yield Problem(
            ("data", "workers"),
            f"only data.name: folder reads with workers; {data.name} is in memory",
        )
    if data.name != "folder" and data.on_bad_image == "skip":
        yield Problem(
            ("data", "on_bad_image"),
            f"only data.name: folder has image files to skip; {data.name} is in memory",
        )
    if data.name != "folder" and data.cache is not None:
        yield Problem(
            ("data", "cache"),
            f"only data.name: folder has image files to decode; {data.name} is in memory",
        )


def check_cache(config: Config, stage: str, geometry: Sequence[Geometric]) -> Iterator[Problem]:
    """Whether cached images are as large as the operations of a stage ask for."""
    largest = max((getattr(operation, "size", 0) for operation in geometry), default=0)
    if config.data.cache is not None and config.data.cache.shorter_side < largest:
        yield Problem(
            ("data", "cache", "shorter_side"),
            f"expected {largest} or more, as augmentation.{stage} asks for, received "
            f"{config.data.cache.shorter_side}",
        )


def _optimizer(config: Config) -> Iterator[Problem]:
    optimizer = config.optimizer
    if isinstance(optimizer, Adam) and optimizer.name == "adamw" and optimizer.fused:
        yield Problem(("optimizer", "fused"), "Paddle has adamw in single steps only; use adam")


def _training(config: Config) -> Iterator[Problem]:
    training = config.training
    if training.compile != "off" and training.backend == "onednn":
        yield Problem(
            ("training", "compile"),
            f"onednn's operations have no static form: received {training.compile} with "
            "training.backend: onednn; use framework or channels_last",
        )
    if training.target_threshold is not None and training.loss != "binary_cross_entropy":
        yield Problem(
            ("training", "target_threshold"),
            f"needs training.loss: binary_cross_entropy, received {training.loss}",
        )
    if training.freeze and config.model.weights is None:
        yield Problem(
            ("training", "freeze"),
            "needs model.weights: what is frozen would stay at its random start",
        )
    if training.on_nan == "skip" and training.accumulate > 1:
        yield Problem(
            ("training", "on_nan"),
            f"skip needs training.accumulate: 1, received {training.accumulate}: of accumulated "
            "batches no single one can be left out",
        )


def _monitor(config: Config) -> Iterator[Problem]:
    monitor, mode = config.checkpoint.monitor, config.checkpoint.mode
    averaged = monitor.startswith("ema_")
    if not re.fullmatch(r"(ema_)?(loss|top\d+)", monitor):
        yield Problem(
            ("checkpoint", "monitor"),
            f"expected loss, top1 or top5 (with ema_ in front: of training.ema), received "
            f"{monitor!r}",
        )
        return
    if averaged and config.training.ema is None:
        yield Problem(("checkpoint", "monitor"), f"{monitor} needs training.ema, which is not set")
    right = "min" if monitor.endswith("loss") else "max"
    if mode != right:
        yield Problem(
            ("checkpoint", "mode"), f"expected {right} for monitor: {monitor}, received {mode!r}"
        )
