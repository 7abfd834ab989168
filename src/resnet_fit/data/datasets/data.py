"""What every data set of a config has: its parts, and how batches are drawn from it."""

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
    """What a run trains on, judges epochs by and, where there is a third part, tests on."""

    train: Dataset
    evaluation: Dataset
    test: Dataset | None


class Data(Part):
    """Images and labels, and how batches are drawn from them.

    Args:
        validation: the share of the training set that is held out to judge epochs by; the test set
            is then used once, after the last epoch.
        split_seed: the seed of that choice.
        limit: images to take of each part, each class its share.
        batch_size: images of a training batch.
        eval_batch_size: images of a batch in evaluation.
        drop_last: whether a last, smaller training batch is left out.
        sampler: ``shuffled``, or ``balanced``, which trains on all classes equally often.
        repeats: how often each image comes in an epoch, differently augmented; there are fewer
            images in an epoch then (Hoffer et al. 2019).
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
        if self.repeats > 1 and not config.augmentation.varies(self):
            yield Problem(("repeats",), "nothing in augmentation.train makes repeats differ")

    def load(self) -> tuple[Dataset, Dataset]:
        """The images to train on, and those that are held out.

        Raises:
            UserError: they are not there or not right.
        """
        raise NotImplementedError

    def open(self) -> Parts:
        """The parts of the data, after ``validation`` and ``limit``.

        Raises:
            UserError: the data are not there or not right.
        """
        train, held_out = self.load()
        if not self.validation:
            return Parts(subset(train, self.limit), subset(held_out, self.limit), None)
        train, evaluation = split(train, self.validation, self.split_seed)
        limited = (subset(part, self.limit) for part in (train, evaluation, held_out))
        return Parts(*limited)

    def operations(self) -> Mapping[str, Callable[..., Any]]:
        """The augmentation operations for this kind of images."""
        return parts("augmentation")

    def check_operations(self, operations: Sequence[Any]) -> None:
        """Raise UserError for operations that cannot be meant in this order."""
        check_order(operations)

    def order(self) -> Sampler:
        """The images of a training epoch, in their order."""
        sampler = {"shuffled": shuffled, "balanced": balanced}[self.sampler]
        return sampler if self.repeats == 1 else repeated(sampler, self.repeats)
