"""How many threads to compute with while other processes need cores too."""

from __future__ import annotations

from collections.abc import Generator
from typing import NamedTuple

# The least steps and seconds for which a number of threads is measured.
STEPS, SECONDS = 5, 2.0
# Time between two trials, as a multiple of the time of a trial.
REST = 20.0
# The number changes where a step saves at least this share of its time.
GAIN = 0.03
# Seconds over which the cores taken by others are averaged.
MEMORY = 5.0


class Steps(NamedTuple):
    """One or more steps: their seconds and images, and how many seconds of cores others took."""

    seconds: float
    images: int
    taken: float

    @property
    def pace(self) -> float:
        """Seconds per image."""
        return self.seconds / self.images


class ThreadPolicy:
    """Decides, step by step, between all threads and fewer.

    The threads of an operation wait for each other, so that one core with other work to do slows
    all of them. While others keep half a core or more busy, this tries as many threads as they
    leave cores, keeps what is faster, and looks again from time to time. When they are gone it goes
    back to all.

    Args:
        threads: all of them, the number to start with.

    Attributes:
        threads: the number for the next step.
    """

    def __init__(self, threads: int) -> None:
        self.all = self._kept = threads
        self._taken = 0.0
        self._resting = 0.0  # seconds until the next trial
        self.restart()

    def restart(self) -> None:
        """Drop what was measured: images may have another size from now on."""
        self._course = self._rest_and_try()
        self.threads = next(self._course)

    def step(self, seconds: float, images: int, taken: float) -> int:
        """The number for the next step.

        Args:
            seconds, images: of the step that is done.
            taken: cores that other processes kept busy lately.
        """
        self._taken += (taken - self._taken) * min(1.0, seconds / MEMORY)
        if self.all > 1 and self._taken >= 0.5:
            self.threads = self._course.send(Steps(seconds, images, taken * seconds))
        else:
            self._kept, self._resting = self.all, 0.0
            self.restart()
        return self.threads

    def _rest_and_try(self) -> Generator[int, Steps, None]:
        while True:
            while self._resting > 0:
                step = yield self._kept
                self._resting -= step.seconds
            usual = yield from self._measure(self._kept)
            left = max(1, self.all - int(usual.taken / usual.seconds + 0.5))
            other = left if left != self._kept else self.all
            tried = yield from self._measure(other)
            if tried.pace < usual.pace * (1 - GAIN):
                self._kept = other
            self._resting = REST * (usual.seconds + tried.seconds)

    def _measure(self, threads: int) -> Generator[int, Steps, Steps]:
        """Some steps together. The first is left out: it may have to compile."""
        yield threads
        steps: list[Steps] = []
        while len(steps) < STEPS or sum(step.seconds for step in steps) < SECONDS:
            steps.append((yield threads))
        return Steps(*(sum(values) for values in zip(*steps, strict=True)))
