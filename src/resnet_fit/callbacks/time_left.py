"""How long a training will still take."""

from __future__ import annotations

import time

from resnet_fit.callbacks.clock import Clock
from resnet_fit.training.evaluated_epochs import EvaluatedEpochs

# Images evaluated in the time that one takes in training: assumed until evaluation was timed.
EVALUATION_SPEED = 3.0


class TimeLeft:
    """Seconds left, judged by what steps, epochs and evaluations have taken so far.

    Args:
        clock: of the training.
        evaluated: images that the network evaluates after each epoch, each counted as often as it
            is computed. 0 if that is not known.
        tested: the same of a test after the last epoch.
        every: epochs from one evaluation to the next, the last one always being evaluated.
    """

    def __init__(self, clock: Clock, evaluated: int = 0, tested: int = 0, every: int = 1) -> None:
        self.clock = clock
        self.evaluated, self.tested, self.every = evaluated, tested, every
        self._phase = ""
        self._epochs_left = 0
        self._epoch_seconds = 0.0
        self._evaluation_seconds: float | None = None
        self._begun = 0.0
        self._done = self._expected = 0.0

    def begin_epoch(self, epochs_left: int) -> None:
        """An epoch starts, or goes on; so many follow it."""
        if self._phase == "evaluation":
            self.end_evaluations()  # saving after them took time as well
        self._phase, self._epochs_left = "epoch", epochs_left

    def end_epoch(self, epochs_left: int) -> None:
        """An epoch is trained and so many follow it.

        If it is one to evaluate, the time from now on is its evaluation's.
        """
        self._epochs_left = epochs_left
        self._phase = "evaluation" if self.clock.epoch in self._evaluated_epochs else "between"
        self._epoch_seconds = self.clock.epoch_seconds
        self._begun, self._done, self._expected = time.perf_counter(), 0.0, self.evaluated

    def begin_test(self) -> None:
        """All epochs are over; the time from now on is the test's."""
        if self._phase != "test":
            self._phase, self._epochs_left = "test", 0
            self._begun, self._done, self._expected = time.perf_counter(), 0.0, self.tested

    def evaluate(self, images: int, share: float) -> None:
        """So many images more are evaluated, and ``share`` of the evaluation they belong to."""
        self._done += images
        self._expected = max(self._expected, self._done)
        if not (self.tested if self._phase == "test" else self.evaluated):
            self._expected = self._done / share

    def end_evaluations(self) -> None:
        """The evaluations of an epoch are over."""
        self._evaluation_seconds = time.perf_counter() - self._begun
        self._done = self._expected

    @property
    def of_epoch(self) -> float:
        """Seconds of training that are left of this epoch."""
        clock = self.clock
        if self._phase != "epoch" or not clock.epoch_step or not clock.epoch_steps:
            return 0.0
        return clock.epoch_seconds / clock.epoch_step * (clock.epoch_steps - clock.epoch_step)

    @property
    def of_run(self) -> float:
        """Seconds left of the run, its evaluations and the test included."""
        if self._phase == "test":
            return self._rest(self._test)
        evaluated, now = self._evaluated_epochs, 0.0
        if self._phase == "epoch":
            epoch = self.clock.epoch_seconds + self.of_epoch
            now = self.of_epoch + self._evaluation * (self.clock.epoch in evaluated)
        else:
            epoch = self._epoch_seconds
            if self._phase == "evaluation":
                now = self._rest(self._evaluation)
        later = self._epochs_left * epoch + evaluated.after(self.clock.epoch) * self._evaluation
        return now + later + self._test

    @property
    def _evaluated_epochs(self) -> EvaluatedEpochs:
        return EvaluatedEpochs(self.clock.epoch + self._epochs_left, self.every)

    @property
    def _share(self) -> float:
        return self._done / self._expected if self._expected else 0.0

    def _rest(self, seconds: float) -> float:
        return seconds * (1 - self._share)

    @property
    def _evaluation(self) -> float:
        """Seconds of an epoch's evaluations."""
        if self._evaluation_seconds is not None:
            return self._evaluation_seconds
        if self._phase == "evaluation" and self._share:
            return (time.perf_counter() - self._begun) / self._share
        speed = self.clock.images_per_second * EVALUATION_SPEED
        return self.evaluated / speed if speed else 0.0

    @property
    def _test(self) -> float:
        """Seconds of the test."""
        if self._phase == "test" and self._share and self._evaluation_seconds is None:
            return (time.perf_counter() - self._begun) / self._share
        return self._evaluation * self.tested / self.evaluated if self.evaluated else 0.0
