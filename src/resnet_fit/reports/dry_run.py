"""The sizes of a run, and its time and memory estimated by some real steps, without the run."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paddle
from rich.console import Console

from resnet_fit import machine
from resnet_fit.callbacks import StepSeed, WeightAverage
from resnet_fit.checkpoints.files import CONFIG, DATA, STATE, find_checkpoint, last_of
from resnet_fit.checkpoints.folder import load_checkpoint
from resnet_fit.checkpoints.optimizer_state import get_optimizer_state
from resnet_fit.data.loading import Batch, Loader
from resnet_fit.data.record import DataRecord
from resnet_fit.files import no_new_files
from resnet_fit.live_line import clock_time
from resnet_fit.reports.steps import begin_at_full_size, is_warm, memory_told
from resnet_fit.runs.automatic import recorded
from resnet_fit.runs.config import Config
from resnet_fit.runs.experiment import Experiment, set_up
from resnet_fit.runs.resuming import checkpoint_config, require_epochs
from resnet_fit.training.evaluated_epochs import EvaluatedEpochs

# `Metered`'s least batches, least seconds, and most seconds.
TRAINING = (5, 3.0, 15.0)
EVALUATION = (2, 1.0, 8.0)


@dataclass
class Metered:
    """Batches of a loader, epoch after epoch, until enough of them were timed.

    The time of a batch goes from when the one before was done to when the consumer asks for the
    next one, so it includes waiting for data. First batches are a warm-up and do not count.

    Args:
        loader: where the batches come from.
        least: the least number of batches to time.
        seconds: the least time to go on for.
        most_seconds: the time after which it ends even with fewer batches than ``least``.
        group: batches of one optimizer step; a multiple of it is timed.
    """

    loader: Loader
    least: int
    seconds: float
    most_seconds: float
    group: int = 1
    warm_up: list[float] = field(default_factory=list)
    measured: list[float] = field(default_factory=list)
    images: int = 0

    def __iter__(self) -> Iterator[Batch]:
        last = time.perf_counter()
        while True:
            for batch in self.loader:
                yield batch
                now = time.perf_counter()
                if self._is_warm():
                    self.measured.append(now - last)
                    self.images += len(batch[1])
                else:
                    self.warm_up.append(now - last)
                last = now
                if self._is_enough():
                    return

    def __len__(self) -> int:
        """More batches than are ever drawn, so that `fit` does not reach the end of an epoch."""
        return sys.maxsize

    @property
    def images_per_second(self) -> float:
        return self.images / sum(self.measured)

    def __str__(self) -> str:
        digits = 0 if self.images_per_second >= 10 else 2
        count = len(self.measured)
        return (
            f"{self.images_per_second:,.{digits}f} images/s, from {count} "
            f"{'batch' if count == 1 else 'batches'} after {len(self.warm_up)} to warm up"
        )

    def _is_warm(self) -> bool:
        return is_warm(self.loader, self.group, len(self.warm_up), sum(self.warm_up))

    def _is_enough(self) -> bool:
        done, spent = len(self.measured), sum(self.measured)
        if not done or done % self.group:
            return False
        return (done >= self.least and spent >= self.seconds) or spent >= self.most_seconds


def dry_run(config: Config, console: Console, run: Path | None = None) -> None:
    """Print what a run of a config would need, in lines that are comments in YAML.

    A few steps are really trained and thrown away, and a few batches are evaluated. Nothing is
    written to the disk.

    Args:
        config: the experiment.
        console: where to print.
        run: the folder of a run to go on with, whose checkpoint is read.

    Raises:
        UserError: the run would not start, for the reason told.
        RunFailed: the memory does not suffice.
    """
    with no_new_files():
        if run is None:
            experiment = set_up(config)
        else:
            found = find_checkpoint(last_of(run), [STATE, DATA, CONFIG])
            data, was = DataRecord.read(found / DATA), recorded(run, checkpoint_config(found))
            experiment = set_up(config, recorded=data, was=was)
    settings = config.callbacks.get("weight_average")
    with closing(experiment.loaders):
        average = None if settings is None else WeightAverage(None, **settings.model_dump())
        done = 0.0 if run is None else _epochs_done(experiment, run, average)
        for line in _sizes(experiment):
            console.print(f"# {line}")
        training, evaluation = _measure(experiment, average)
    for line in _estimates(experiment, training, evaluation, average, done):
        console.print(f"# {line}")


def _epochs_done(experiment: Experiment, run: Path, average: WeightAverage | None) -> float:
    """How far a run has come; its weights and all else of its checkpoint are loaded."""
    state, _ = load_checkpoint(last_of(run), experiment.model, average)
    require_epochs(experiment.config, state)
    clock = state["clock"]
    if not clock["within_epoch"]:
        return clock["epoch"]
    return clock["epoch"] - 1 + clock["epoch_step"] / len(experiment.loaders.train)


def _sizes(experiment: Experiment) -> Iterator[str]:
    counts, epochs = experiment.counts, experiment.config.training.epochs
    steps = len(experiment.loaders.train)
    yield f"{experiment.device}, {experiment.execution}"
    yield (
        f"{counts['parameters']:,} parameters; {counts['macs']:,} multiply-accumulates for an "
        "image in evaluation"
    )
    yield (
        f"{counts['train_images']:,} images to train on, {counts['eval_images']:,} to evaluate on; "
        f"{steps:,} batches an epoch, {steps * epochs:,} in all"
    )


def _measure(experiment: Experiment, average: WeightAverage | None) -> tuple[Metered, Metered]:
    config, loaders, model = experiment.config, experiment.loaders, experiment.model
    begin_at_full_size(experiment)
    accumulate = config.training.accumulate
    training = Metered(loaders.train, *TRAINING, group=accumulate)
    evaluation = Metered(loaders.evaluation, *EVALUATION)
    callbacks: list[Any] = [paddle.callbacks.LRScheduler(), StepSeed(config.training.seed)]
    if average is not None:
        callbacks.append(average)
    with memory_told(config):
        model.fit(
            training,
            epochs=1,
            accumulate_grad_batches=accumulate,
            verbose=0,
            callbacks=callbacks,
        )
        model.evaluate(evaluation, verbose=0)
    return training, evaluation


def _estimates(
    experiment: Experiment,
    training: Metered,
    evaluation: Metered,
    average: WeightAverage | None,
    done: float,
) -> Iterator[str]:
    config, counts = experiment.config, experiment.counts
    loader = experiment.loaders.train
    images = min(loader.count, len(loader) * loader.batch_size)  # the last batch may be dropped
    trained = images / training.images_per_second
    passes = 1 + (average is not None) + 2 * (config.callbacks.get("flip_average") is not None)
    evaluated = passes * counts["eval_images"] / evaluation.images_per_second
    yield f"a checkpoint takes {_checkpoint_bytes(experiment, average) / 1e6:,.1f} MB"
    full_size = ", all images at full size" if config.augmentation.progressive is not None else ""
    yield f"training takes about {_time(trained)} an epoch ({training}{full_size})"
    through = f", {passes} times through the network" if passes > 1 else ""
    epochs, every = config.training.epochs, config.training.evaluate_every
    yield f"evaluation takes about {_time(evaluated)} {_after(every)} ({evaluation}{through})"
    left = max(0.0, epochs - done)
    evaluations = EvaluatedEpochs(epochs, every).after(int(done))
    most = " at most" if config.callbacks.get("early_stopping") is not None else ""
    what = f"what is left, {left:.4g} of {epochs} epochs," if done else "the whole run"
    yield f"{what} takes about {_time(left * trained + evaluations * evaluated)}{most}"
    yield from _memory(experiment)


def _after(every: int) -> str:
    return "an epoch" if every == 1 else f"after every {every} epochs and the last one"


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else clock_time(seconds)


def _checkpoint_bytes(experiment: Experiment, average: WeightAverage | None) -> int:
    model = experiment.model
    weights = list(model.network.state_dict().values())
    if average is not None:
        weights += average.weights().values()
    optimizer = get_optimizer_state(model._optimizer, model.network)
    return sum(t.numpy().nbytes for t in weights) + sum(a.nbytes for a in optimizer.values())


def _memory(experiment: Experiment) -> Iterator[str]:
    """The most that was held; worker processes have their own."""
    if experiment.device.startswith("gpu"):
        held = paddle.device.cuda.max_memory_reserved()
        yield f"{held / 1e9:.1f} GB of GPU memory were held at most in these batches"
    peak, memory = machine.peak_memory(), machine.memory()
    if peak is None:
        return
    total = min((n for n in (memory.total, memory.limit) if n is not None), default=None)
    of = "" if total is None else f" (of {total / 1e9:.1f} GB)"
    workers = getattr(experiment.loaders.train, "workers", 0)
    besides = f"; data.workers ({workers}) have their own" if workers else ""
    yield f"{peak / 1e9:.1f} GB of memory{of} were held at most in these batches{besides}"
