"""Schedules that keep the rate, or lower it at once."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from resnet_fit.config.problems import Problem
from resnet_fit.config.registry import part
from resnet_fit.config.settings import Between0And1, Positive
from resnet_fit.training.schedules.schedule import Schedule

if TYPE_CHECKING:
    from resnet_fit.runs.config import Config


@part("schedule", "constant")
class Constant(Schedule):
    """The same rate all the time."""

    def share(self, epoch: float, epochs: float) -> float:
        return 1.0


@part("schedule", "step")
class Step(Schedule):
    """The rate is multiplied by ``factor`` again and again.

    Args:
        every_epochs: how often.
        factor: what the rate is multiplied by each time.
    """

    every_epochs: Positive
    factor: Between0And1 = 0.1

    def no_effect(self, config: Config) -> Iterator[Problem]:
        yield from super().no_effect(config)
        yield from _never_reached("every_epochs", [self.every_epochs], config)

    def share(self, epoch: float, epochs: float) -> float:
        return self.factor ** math.floor(epoch / self.every_epochs)


@part("schedule", "multi_step")
class MultiStep(Schedule):
    """The rate is multiplied by ``factor`` at given epochs (He et al. 2015, section 4.2).

    Args:
        at_epochs: when, in rising order; fractions are fine.
        factor: what the rate is multiplied by each time.
    """

    at_epochs: Annotated[list[Positive], Field(min_length=1)]
    factor: Between0And1 = 0.1

    def problems(self, config: Config | None) -> Iterator[Problem]:
        yield from super().problems(config)
        if self.at_epochs != sorted(set(self.at_epochs)):
            yield Problem(
                ("at_epochs",), f"expected epochs in rising order, received {self.at_epochs}"
            )

    def no_effect(self, config: Config) -> Iterator[Problem]:
        yield from super().no_effect(config)
        yield from _never_reached("at_epochs", self.at_epochs, config)

    def share(self, epoch: float, epochs: float) -> float:
        return self.factor ** bisect_right(self.at_epochs, epoch)


def _never_reached(key: str, steps: Iterable[float], config: Config) -> Iterator[Problem]:
    """Steps that a training, perhaps a shortened one, does not reach."""
    epochs = config.training.epochs
    late = ", ".join(f"{epoch:g}" for epoch in steps if epoch >= epochs)
    if late:
        yield Problem((key,), f"{late} with training.epochs {epochs}")
