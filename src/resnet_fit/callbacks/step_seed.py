"""Seeds Paddle before each step, so that dropout resumes exactly."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import paddle

from resnet_fit.callbacks.clock import Clock, Clocked


class StepSeed(Clocked):
    """Seeds Paddle's generator at the beginning of each step, from ``seed`` and the step's number.

    For networks that draw random numbers themselves, as dropout and stochastic depth do: a training
    that is resumed then draws what one that never stopped draws.
    """

    phase: ClassVar[str] = "schedule"

    def __init__(self, seed: int = 0, clock: Clock | None = None) -> None:
        super().__init__(clock)
        self.seed = seed

    def on_train_batch_begin(self, step: int, logs: dict[str, Any] | None = None) -> None:
        super().on_train_batch_begin(step, logs)
        state = np.random.SeedSequence([self.seed, self.clock.batch]).generate_state(1)
        paddle.seed(int(state[0]))
