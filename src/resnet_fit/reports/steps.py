"""What the reports share that train a few steps and throw them away."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager

from resnet_fit.data.loading import AHEAD, Batch, FileLoader, Loader
from resnet_fit.data.workers import TASKS_EACH
from resnet_fit.errors import RunFailed, out_of_memory
from resnet_fit.runs.config import Config
from resnet_fit.runs.experiment import Experiment

# The first steps are slow: operations are prepared, and the optimizer makes its accumulators.
WARM_UP_STEPS = 2
# Batches that the loader made ahead belong to the warm-up too, but for no longer than this.
WARM_UP_SECONDS = 8.0


def is_warm(loader: Loader, group: int, batches: int, seconds: float) -> bool:
    """Whether a training is past its warm-up.

    Args:
        loader: of its batches.
        group: batches of one optimizer step.
        batches, seconds: done so far.
    """
    made_ahead = AHEAD
    if isinstance(loader, FileLoader):
        made_ahead += TASKS_EACH * loader.workers
    has_begun = batches >= max(WARM_UP_STEPS, group)
    return has_begun and (batches >= made_ahead or seconds >= WARM_UP_SECONDS)


def begin_at_full_size(experiment: Experiment) -> None:
    """Where images grow from epoch to epoch, let the training's batches begin in the last one."""
    config = experiment.config
    if config.augmentation.progressive is not None:
        experiment.loaders.train.set_position(config.training.epochs - 1)


def endless(experiment: Experiment) -> Generator[Batch, None, None]:
    """The training's batches, epoch after epoch, of full size."""
    begin_at_full_size(experiment)
    while True:
        yield from experiment.loaders.train


def train_step(experiment: Experiment, batches: Iterator[Batch]) -> float:
    """Make one step of the optimizer and its schedule; return the mean loss of its images."""
    model, accumulate = experiment.model, experiment.config.training.accumulate
    losses, images = 0.0, 0
    for batch in range(1, accumulate + 1):
        inputs, labels = next(batches)
        (loss,), _ = model.train_batch([inputs], [labels], update=batch == accumulate)
        losses += float(loss)
        images += len(labels)
    model._optimizer._learning_rate.step()
    if accumulate == 1:
        return losses
    # Each was weighted as in a group of full batches: see `accumulated`.
    return losses * accumulate * experiment.config.data.batch_size / images


@contextmanager
def memory_told(config: Config) -> Iterator[None]:
    """Say what to change where memory runs out.

    Raises:
        RunFailed: it does.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RunFailed) or not out_of_memory(error):
            raise
        raise RunFailed(
            f"memory ran out at data.batch_size {config.data.batch_size} and data.eval_batch_size "
            f"{config.data.eval_batch_size}; try smaller ones, with a larger training.accumulate, "
            "or another training.precision"
        ) from error
