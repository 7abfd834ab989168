"""What a schema cannot say: settings that are valid alone and wrong together.

Every check here needs neither data nor Paddle; those that do are made before the first epoch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from resnet_fit.config.problems import Problem
from resnet_fit.config.schema import Config, MultiStep, OneCycle
from resnet_fit.errors import UserError
from resnet_fit.networks.depth import resolve_depth


def check(config: Config) -> Iterator[Problem]:
    """Every problem between settings."""
    yield from _depth(config)
    yield from _schedule(config)
    yield from _data(config)
    if not re.fullmatch(r"loss|top\d+", config.checkpoint.monitor):
        expected = "expected loss, top1 or top5"
        received = f"received {config.checkpoint.monitor!r}"
        yield Problem(("checkpoint", "monitor"), f"{expected}, {received}")
    if config.checkpoint.monitor == "loss" and config.checkpoint.mode == "max":
        yield Problem(("checkpoint", "mode"), "expected min for monitor: loss, received 'max'")
    if config.checkpoint.monitor != "loss" and config.checkpoint.mode == "min":
        yield Problem(
            ("checkpoint", "mode"),
            f"expected max for monitor: {config.checkpoint.monitor}, received 'min'",
        )


def _depth(config: Config) -> Iterator[Problem]:
    model = config.model
    try:
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
