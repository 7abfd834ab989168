"""The settings that all data sets share: splits, batches, sampling."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from resnet_fit.config.problems import Problem
from resnet_fit.config.registry import parts
from resnet_fit.config.settings import Below1, NonNegativeInt, Part, PositiveInt
from resnet_fit.data.augment import check_order
from resnet_fit.data.dataset import Dataset, split, subset
from resnet_fit.data.sampling import Sampler, balanced, repeated, shuffled

if TYPE_CHECKING:
    from resnet_fit.runs.config import Config


class Parts(NamedTuple):
    """Training images, images to evaluate each epoch on, and an optional test set."""

    train: Dataset
    evaluation: Dataset
    test: Dataset | None


class Data(Part):
    """Images and labels, and how batches are drawn from them.

    Args:
        validation: the share of the training set that is held out to evaluate each epoch on. CIFAR
            and digits then use their test set once, after the last epoch; ``folder`` has no
            separate test set.
        split_seed: the seed of this split.
        limit: the number of images to use of each part, stratified by class.
        batch_size: images in a training batch.
        eval_batch_size: images in an evaluation batch.
        drop_last: whether to leave out a last training batch that is smaller than the others.
        sampler: ``shuffled``, or ``balanced``, which draws all classes equally often.
        repeats: how many times an image occurs in an epoch, each time augmented differently; the
            length of an epoch stays, so it has fewer different images (Hoffer et al. 2019).
    """

    validation: Below1 = 0.0
    split_seed: NonNegativeInt = 0
    limit: PositiveInt | None = None
    batch_size: PositiveInt = 128
    eval_batch_size: PositiveInt = 250
    drop_last: bool = False
    sampler: Literal["shuffled", "balanced"] = "shuffled"
    repeats: PositiveInt = 1

    def no_effect(self, config: Config) -> Iterator[Problem]:
        if self.split_seed and not self.validation:
            yield Problem(("split_seed",), "without data.validation")
        if self.repeats > 1 and not config.augmentation.varies(self):
            yield Problem(("repeats",), "nothing in augmentation.train makes repeats differ")

    def load(self) -> tuple[Dataset, Dataset]:
        """The training images and the held-out images.

        Raises:
            UserError: they are missing or invalid.
        """
        raise NotImplementedError

    def open(self) -> Parts:
        """The parts of the data, after ``validation`` and ``limit``.

        Raises:
            UserError: the data are missing or invalid.
        """
        train, held_out = self.load()
        if not self.validation:
            return Parts(subset(train, self.limit), subset(held_out, self.limit), None)
        train, evaluation = split(train, self.validation, self.split_seed)
        limited = (subset(part, self.limit) for part in (train, evaluation, held_out))
        return Parts(*limited)

    def judged_on(self, evaluation: Dataset) -> str:
        """``validation`` or ``test``: what the images are that each epoch is evaluated on.

        Args:
            evaluation: these images, of `open`.
        """
        return "validation" if self.validation else "test"

    def operations(self) -> Mapping[str, Callable[..., Any]]:
        """The augmentation operations for this kind of images."""
        return parts("augmentation")

    def check_operations(self, operations: Sequence[Any]) -> None:
        """Raise UserError for operations in a wrong order."""
        check_order(operations)

    def order(self) -> Sampler:
        """The sampler: which images a training epoch has, in which order."""
        sampler = {"shuffled": shuffled, "balanced": balanced}[self.sampler]
        return sampler if self.repeats == 1 else repeated(sampler, self.repeats)
