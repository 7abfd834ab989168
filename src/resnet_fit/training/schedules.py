"""Learning-rate schedules, in epochs.

Each is a function of time, from epochs trained (a fraction is fine) to a share of the full rate.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence

import paddle

Schedule = Callable[[float], float]


def constant() -> Schedule:
    return lambda epoch: 1.0


def step(every_epochs: float, factor: float = 0.1) -> Schedule:
    """Times ``factor`` each ``every_epochs``."""
    return lambda epoch: factor ** math.floor(epoch / every_epochs)


def multi_step(at_epochs: Sequence[float], factor: float = 0.1) -> Schedule:
    """Times ``factor`` at each of ``at_epochs`` (He et al. 2015, section 4.2)."""
    milestones = sorted(at_epochs)
    return lambda epoch: factor ** bisect_right(milestones, epoch)


def cosine(epochs: float, end: float = 0.0) -> Schedule:
    """Half a cosine from 1 to ``end`` (Loshchilov and Hutter 2016, equation 5, no restart)."""
    return lambda epoch: _cosine(1.0, end, epoch / epochs)


def one_cycle(
    epochs: float, peak: float = 0.3, start: float = 0.04, end: float = 0.0, shape: str = "cosine"
) -> Schedule:
    """From ``start`` up to 1 at ``peak`` (a share of ``epochs``), then down to ``end``.

    Smith and Topin 2017, "Super-convergence"; ``shape`` is ``linear`` as there, or ``cosine``.
    """
    between = _cosine if shape == "cosine" else _linear
    turn = peak * epochs

    def share(epoch: float) -> float:
        if epoch < turn:
            return between(start, 1.0, epoch / turn)
        return between(1.0, end, (epoch - turn) / (epochs - turn))

    return share


def warm_up(epochs: float, start: float, then: Schedule) -> Schedule:
    """Linear from ``start`` to 1 during the first ``epochs``, multiplied onto ``then``.

    ``then`` keeps its own clock, so the milestones of a schedule stay where they are
    (Goyal et al. 2017, section 2.2).
    """
    if not epochs:
        return then
    return lambda epoch: _linear(start, 1.0, epoch / epochs) * then(epoch)


def per_step(
    schedule: Schedule, rate: float, steps_per_epoch: int
) -> paddle.optimizer.lr.LRScheduler:
    """A Paddle scheduler that is stepped once per batch, as `paddle.Model.fit` does."""
    return paddle.optimizer.lr.LambdaDecay(rate, lambda step: schedule(step / steps_per_epoch))


def _linear(start: float, end: float, progress: float) -> float:
    return start + (end - start) * min(progress, 1.0)


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2
