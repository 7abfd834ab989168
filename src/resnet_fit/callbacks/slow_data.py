"""Warns of a training that waits too long for its data, and says what may help."""

from __future__ import annotations

import warnings
from typing import Any

from resnet_fit.callbacks.clock import Clock, Clocked


class SlowData(Clocked):
    """Warns once when data are the bottleneck: when a training waits for them too much.

    The first step of each epoch is left out: its batch has to wait for workers to start.

    Args:
        advice: what to change, in words that follow a colon.
        share: waiting for more than this share of the training's time is too much.
        seconds: how long to watch before judging.
        clock: one that is shared with other callbacks; its own by default.
    """

    def __init__(
        self,
        advice: str = "give the loader more workers, or less to do for each image",
        share: float = 0.2,
        seconds: float = 30.0,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(clock)
        self.advice = advice
        self.share, self.seconds = share, seconds
        self.warned = False
        self._watched = self._waited = 0.0
        self._before = (0.0, 0.0)

    def on_train_batch_end(self, step: int, logs: dict[str, Any] | None = None) -> None:
        super().on_train_batch_end(step, logs)
        now = (self.clock.epoch_seconds, self.clock.epoch_wait_seconds)
        if step > 0:
            self._watched += now[0] - self._before[0]
            self._waited += now[1] - self._before[1]
        self._before = now
        too_much = self._waited > self.share * self._watched
        if too_much and self._watched >= self.seconds and not self.warned:
            self.warned = True
            warnings.warn(
                f"data are the bottleneck: the training waited for them {self._waited:.0f} of the "
                f"last {self._watched:.0f} seconds: {self.advice}",
                stacklevel=1,
            )
