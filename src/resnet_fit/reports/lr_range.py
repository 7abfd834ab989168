"""The learning-rate range test: a few steps at rates that grow, and the loss at each.

Smith 2015, "Cyclical learning rates for training neural networks", section 3.3; with rates that
grow exponentially, a smoothed loss and an early end as in Howard and Gugger 2020, "fastai".
"""

from __future__ import annotations

import dataclasses
import math
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
import paddle

from resnet_fit.errors import RunFailed
from resnet_fit.files import no_new_files
from resnet_fit.reports.steps import endless, memory_told, train_step
from resnet_fit.runs.config import Config
from resnet_fit.runs.experiment import generators_untouched, set_up
from resnet_fit.training.schedules.schedule import Schedule

# The smoothed loss is an exponential average that weighs the newest loss by 1 - this.
SMOOTHING = 0.9
# The test is over when the smoothed loss is this many times its least value.
DIVERGED = 4.0
# A loss that fell by less than this share of its first value shows nothing.
LEAST_FALL = 0.05


@dataclass
class RangeTest:
    """What a range test saw, step by step.

    Attributes:
        rates: values of ``optimizer.learning_rate``.
        losses: of each step, a mean over its images; the last one may be NaN or infinite.
        smoothed: their averages, corrected for the start (Kingma and Ba 2014, section 3).
        ended: why the test ended before its last step, or None.
    """

    rates: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    smoothed: list[float] = field(default_factory=list)
    ended: str | None = None
    _average: float = 0.0

    def add(self, rate: float, loss: float) -> bool:
        """Note a step, and return whether the test is over."""
        self._average = SMOOTHING * self._average + (1 - SMOOTHING) * loss
        self.rates.append(rate)
        self.losses.append(loss)
        self.smoothed.append(self._average / (1 - SMOOTHING ** len(self.losses)))
        if not math.isfinite(loss):
            self.ended = f"the loss became {loss} at {rate:.3g}"
        elif self.smoothed[-1] > DIVERGED * min(self.smoothed):
            self.ended = f"the loss became {DIVERGED:g} times its least value at {rate:.3g}"
        return self.ended is not None

    @property
    def lowest(self) -> int:
        """The step of the least smoothed loss."""
        return int(np.nanargmin(self.smoothed))

    @property
    def problem(self) -> str | None:
        """Why nothing can be suggested, or None."""
        if self.smoothed[self.lowest] > (1 - LEAST_FALL) * self.smoothed[0]:
            return (
                f"the loss fell nowhere between the rates {self.rates[0]:.3g} and "
                f"{self.rates[-1]:.3g}; try others, --from and --to, or more --steps"
            )
        if self.ended is None and self.lowest == len(self.losses) - 1:
            return f"the loss still falls at the rate {self.rates[-1]:.3g}; try a larger --to"
        return None

    @property
    def suggestion(self) -> float:
        """The rate with the lowest smoothed loss, to two digits.

        It is meant as the peak of a schedule, which is what `learning_rate` sets. The usual advice,
        a tenth of it, is for a constant rate; `docs/inspect.md` has figures of both.
        """
        return float(f"{self.rates[self.lowest]:.1e}")


class _Growing(Schedule):
    """The schedule of the test: each step multiplies the rate by ``factor``.

    Args:
        first: the share of the full rate at the first step.
        factor: from each step to the next.
    """

    first: float
    factor: float

    def rate(self, full: float, epochs: float, steps: int) -> paddle.optimizer.lr.LRScheduler:
        return paddle.optimizer.lr.LambdaDecay(full, lambda step: self.first * self.factor**step)


def find_lr(config: Config, first: float = 1e-5, last: float = 10.0, steps: int = 100) -> RangeTest:
    """Train a config's network for some steps at rates that grow from ``first`` to ``last``.

    Everything but the schedule is the run's own. Rates are values of ``optimizer.learning_rate``,
    and all groups of parameters scale with it. Nothing is written, and Python's, numpy's and
    Paddle's random generators are afterwards as before.

    Args:
        steps: of the optimizer, each of ``training.accumulate`` batches.

    Raises:
        UserError: the run would not start, for the reason told.
        RunFailed: the memory does not suffice, or the first loss is NaN or infinite.
    """
    factor = (last / first) ** (1 / max(1, steps - 1))
    growing = _Growing(first=first / config.optimizer.learning_rate, factor=factor)
    found = RangeTest()
    with generators_untouched(), paddle.utils.unique_name.guard():
        with no_new_files():
            experiment = set_up(dataclasses.replace(config, schedule=growing))
        with (
            closing(experiment.loaders),
            closing(endless(experiment)) as batches,
            memory_told(config),
        ):
            for step in range(steps):
                loss = train_step(experiment, batches)
                if step == 0 and not math.isfinite(loss):
                    raise RunFailed(
                        f"the loss is {loss} at the first step, whatever the rate: see the "
                        "network, its weights and training.precision"
                    )
                if found.add(first * factor**step, loss):
                    break
    return found
