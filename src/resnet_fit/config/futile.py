"""Settings that are valid and change nothing: most likely not what was meant."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from resnet_fit.config.problems import Problem
from resnet_fit.config.schema import Config, Momentum, MultiStep, Muon, Step
from resnet_fit.data.augment import Operation


def futile(config: Config, train: Sequence[object]) -> Iterator[Problem]:
    """Every setting without effect; ``train`` are the operations built for the training."""
    yield from _augmentation(config, train)
    yield from _training(config)
    yield from _schedule(config)
    optimizer = config.optimizer
    if isinstance(optimizer, Momentum | Muon) and optimizer.nesterov and not optimizer.momentum:
        yield Problem(("optimizer", "nesterov"), "without momentum")
    for part, factor in optimizer.rate_factors.items():
        if factor == 1:
            yield Problem(("optimizer", "rate_factors", part), "a factor of 1")


def _augmentation(config: Config, train: Sequence[object]) -> Iterator[Problem]:
    for i, operation in enumerate(train):
        if isinstance(operation, Operation) and operation.idle:
            yield Problem(("augmentation", "train", i), "with these options")
    mix = config.augmentation.mix
    if mix is not None and (not mix.share or not (mix.mixup or mix.cutmix)):
        yield Problem(
            ("augmentation", "mix"),
            f"with mixup {mix.mixup:g}, cutmix {mix.cutmix:g} and share {mix.share:g}",
        )
    varied = any(not isinstance(op, Operation) or (op.draws and not op.idle) for op in train)
    if config.data.repeats > 1 and not varied:
        yield Problem(("data", "repeats"), "nothing in augmentation.train makes repeats differ")


def _schedule(config: Config) -> Iterator[Problem]:
    """Steps that a training, perhaps a shortened one, does not reach."""
    schedule, epochs = config.schedule, config.training.epochs
    if isinstance(schedule, MultiStep):
        key, steps = "at_epochs", schedule.at_epochs
    elif isinstance(schedule, Step):
        key, steps = "every_epochs", [schedule.every_epochs]
    else:
        return
    late = ", ".join(f"{epoch:g}" for epoch in steps if epoch >= epochs)
    if late:
        yield Problem(("schedule", key), f"{late} with training.epochs {epochs}")


def _training(config: Config) -> Iterator[Problem]:
    training = config.training
    stopping = training.early_stopping
    if stopping is not None and stopping.patience >= training.epochs:
        yield Problem(
            ("training", "early_stopping", "patience"),
            f"{stopping.patience} epochs of {training.epochs} can never go by",
        )
    weights = training.class_weights
    if isinstance(weights, list) and set(weights) == {1}:
        yield Problem(("training", "class_weights"), "every class has weight 1")
    if training.label_smoothing and training.target_threshold is not None:
        yield Problem(
            ("training", "label_smoothing"), "training.target_threshold makes targets whole again"
        )
