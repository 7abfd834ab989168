"""Schedules that follow half a cosine."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from resnet_fit.config.problems import Problem
from resnet_fit.config.registry import part
from resnet_fit.config.settings import Between0And1, Share
from resnet_fit.training.schedules.schedule import Schedule, linear

if TYPE_CHECKING:
    from resnet_fit.runs.config import Config


@part("schedule", "cosine")
class Cosine(Schedule):
    """Half a cosine from the full rate down (Loshchilov and Hutter 2016, equation 5, no restart).

    Args:
        end: the share of the full rate at the end of the training.
    """

    end: Share = 0.0

    def share(self, epoch: float, epochs: float) -> float:
        return _cosine(1.0, self.end, epoch / epochs)


@part("schedule", "one_cycle")
class OneCycle(Schedule):
    """Up to the full rate, then down (Smith and Topin 2017, "Super-convergence").

    Args:
        peak: the share of the training at which the rate is full.
        start: the share of the full rate at the beginning.
        end: the share of the full rate at the end.
        shape: of both sides: ``linear`` as in the paper, or ``cosine``.
    """

    peak: Between0And1 = 0.3
    start: Share = 0.04
    end: Share = 0.0
    shape: Literal["linear", "cosine"] = "cosine"

    def problems(self, config: Config | None) -> Iterator[Problem]:
        yield from super().problems(config)
        if self.warmup_epochs:
            yield Problem(
                ("warmup_epochs",),
                "one_cycle rises by itself: set schedule.peak, and leave warmup_epochs out",
            )

    def share(self, epoch: float, epochs: float) -> float:
        between = _cosine if self.shape == "cosine" else linear
        turn = self.peak * epochs
        if epoch < turn:
            return between(self.start, 1.0, epoch / turn)
        return between(1.0, self.end, (epoch - turn) / (epochs - turn))


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2
