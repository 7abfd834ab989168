"""Where a training is and how fast it goes: what every callback that reports needs to know."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass
class Clock:
    """Counts epochs, steps and images, and the seconds spent on them.

    A callback owns one and tells it what happens. A resumed run starts it where the earlier one
    stopped, since `paddle.Model.fit` itself counts every call from zero.

    Attributes:
        epoch: epochs begun; the first is 1.
        step: batches trained on, over the whole run.
        epoch_step, epoch_images, epoch_seconds: the same within the epoch. Seconds are those of
            training, loading included and evaluation not.
    """

    epoch: int = 0
    step: int = 0
    seconds_before: float = 0.0
    epoch_step: int = 0
    epoch_images: int = 0
    epoch_seconds: float = 0.0
    _begun: float = field(default_factory=time.perf_counter)
    _last: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Time the whole run has used, evaluation and earlier sittings included."""
        return self.seconds_before + time.perf_counter() - self._begun

    @property
    def images_per_second(self) -> float:
        return self.epoch_images / self.epoch_seconds if self.epoch_seconds else 0.0

    def begin(self) -> None:
        self._begun = time.perf_counter()

    def begin_epoch(self) -> None:
        self.epoch += 1
        self.epoch_step = self.epoch_images = 0
        self.epoch_seconds = 0.0
        self._last = time.perf_counter()

    def count(self, images: int) -> None:
        """A training step is done; its time is what went by since the one before."""
        now = time.perf_counter()
        self.epoch_seconds += now - self._last
        self._last = now
        self.epoch_images += images
        self.epoch_step += 1
        self.step += 1
