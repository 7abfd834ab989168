"""Where a training is and how fast it goes: what every callback that reports needs to know."""

from __future__ import annotations

import time
from typing import Any

import paddle

from resnet_fit.callbacks import logs as read
from resnet_fit.data.dealing import Dealer, Turn


class Clock:
    """Counts epochs, steps and images, and the seconds spent on them.

    Callbacks tell it what happens. Those of one training may share one: the first to report an
    event moves it, the others change nothing. `paddle.Model.fit` counts every call from zero; a
    clock goes on from where an earlier one stopped, in the middle of an epoch as well.

    Args:
        dealer: where several processes train together, what deals their batches: the clock then
            counts those of all, whole groups at a time.

    Attributes:
        epoch: epochs begun; the first is 1.
        step: batches trained on, over the whole run.
        epoch_step, epoch_images, epoch_seconds: the same within the epoch, images without those of
            steps that were left out. Seconds are those of training, loading included and
            evaluation not.
        epoch_wait_seconds: those of them in which the next batch was not there yet.
        epoch_steps: the steps a whole epoch has, where `fit` knows them.
        within_epoch: whether an epoch has begun and not ended.
    """

    def __init__(self, dealer: Dealer | None = None) -> None:
        self.dealer = dealer
        self.epoch = self.step = 0
        self.epoch_step = self.epoch_images = 0
        self.epoch_seconds = self.epoch_wait_seconds = 0.0
        self.epoch_steps: int | None = None
        self._seconds_before = 0.0
        self.within_epoch = False
        self._begun = self._last = self._free = time.perf_counter()
        self._reported: tuple[object, ...] = ()

    @property
    def seconds(self) -> float:
        """Time the whole run has used, evaluation and earlier sittings included."""
        return self._seconds_before + time.perf_counter() - self._begun

    @property
    def images_per_second(self) -> float:
        return self.epoch_images / self.epoch_seconds if self.epoch_seconds else 0.0

    @property
    def data_wait(self) -> float:
        """The share of the epoch's seconds in which the training waited for data."""
        return self.epoch_wait_seconds / self.epoch_seconds if self.epoch_seconds else 0.0

    def begin(self, steps: int | None = None) -> None:
        """`fit` starts; after a resume amid an epoch ``steps`` is what is left of it."""
        if self._is_news("begin"):
            self._begun = time.perf_counter()
            done = self.epoch_step if self.within_epoch else 0
            self.epoch_steps = steps and steps + done

    def begin_epoch(self, epoch: int) -> None:
        """An epoch starts, or goes on; ``epoch`` is `fit`'s own number for it."""
        self.await_batch()
        if not self._is_news("epoch", epoch):
            return
        self._last = time.perf_counter()
        if self.within_epoch:
            return
        self.within_epoch = True
        self.epoch += 1
        self.epoch_step = self.epoch_images = 0
        self.epoch_seconds = self.epoch_wait_seconds = 0.0

    def begin_step(self, step: int) -> None:
        """The batch of `fit`'s step number ``step`` is there."""
        if self._is_news("batch", self.epoch, step):
            self.epoch_wait_seconds += time.perf_counter() - self._free

    def count(self, step: int, images: int) -> None:
        """A step is done, `fit`'s number ``step``, and took what went by since the one before."""
        self.await_batch()
        if not self._is_news("step", self.epoch, step):
            return
        now = time.perf_counter()
        self.epoch_seconds += now - self._last
        self._last = now
        turn = self.turn
        if turn is None:
            steps = 1
        else:
            steps, images = (turn.end - turn.begin, turn.images) if turn.ends_group else (0, 0)
            self.epoch_steps = turn.batches
        self.epoch_images += images
        self.epoch_step += steps
        self.step += steps

    @property
    def turn(self) -> Turn | None:
        """What is in hand, where several processes train together."""
        return self.dealer.turn if self.dealer is not None else None

    @property
    def batch(self) -> int:
        """The number of the batch in hand, over the whole run and all processes, from 1."""
        turn = self.turn
        return self.step + 1 if turn is None else self.step - self.epoch_step + turn.batch + 1

    @property
    def is_first_batch(self) -> bool:
        """Whether the batch in hand is the epoch's first one."""
        return self.epoch_step == 0 if self.turn is None else self.turn.batch == 0

    @property
    def is_last_batch(self) -> bool:
        """Whether the batch in hand is this process's last one of the epoch."""
        turn = self.turn
        if turn is None:
            return self.epoch_step + 1 == self.epoch_steps
        return turn.ends_group and turn.end == turn.batches

    def has_passed(self, every: int, since: int) -> bool:
        """Whether a multiple of ``every`` steps of the epoch has gone by since step ``since``.

        Steps of several processes, and of accumulated batches, go by together.
        """
        return self.epoch_step // every > since // every

    def leave_out(self, images: int) -> None:
        """The step that was counted last was not trained on; its images do not count."""
        self.epoch_images -= images

    def await_batch(self) -> None:
        """Callbacks are done with a step: what goes by from now on is waiting for the next batch.

        To be said again after work that took long.
        """
        self._free = time.perf_counter()

    def end_epoch(self) -> None:
        """The epoch's last step is done."""
        self.within_epoch = False

    def end(self) -> None:
        """`fit` is over; time until the next one does not count."""
        if self._is_news("end"):
            self._seconds_before = self.seconds
            self._begun = time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        """Where the training stands, as plain numbers."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "seconds": self.seconds,
            "within_epoch": self.within_epoch,
            "epoch_step": self.epoch_step,
            "epoch_images": self.epoch_images,
            "epoch_seconds": self.epoch_seconds,
            "epoch_wait_seconds": self.epoch_wait_seconds,
        }

    def set_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch, self.step = state["epoch"], state["step"]
        self._seconds_before = state["seconds"]
        self.within_epoch = state["within_epoch"]
        self.epoch_step, self.epoch_images = state["epoch_step"], state["epoch_images"]
        self.epoch_seconds = state["epoch_seconds"]
        self.epoch_wait_seconds = state["epoch_wait_seconds"]

    def _is_news(self, *event: object) -> bool:
        news = event != self._reported
        self._reported = event
        return news


class Clocked(paddle.callbacks.Callback):
    """A callback that knows where its training is.

    A subclass that needs an event for itself passes it on to this class as well.

    Attributes:
        clock: the one it was given to share, or its own.
        rate: the learning rate of the current step.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        super().__init__()
        self.clock = clock or Clock()
        self.rate = 0.0

    @property
    def ends_group(self) -> bool:
        """Whether the batch that was counted last is the last one before an optimizer step.

        `fit` steps the optimizer after each group of accumulated batches, and at an epoch's end.
        """
        turn = self.clock.turn
        if turn is not None:
            return turn.ends_group
        step = self.clock.epoch_step
        return step % getattr(self.model, "_accumulate", 1) == 0 or step == self.clock.epoch_steps

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.clock.begin(self.params["steps"])

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.clock.begin_epoch(epoch)

    def on_train_batch_begin(self, step: int, logs: dict[str, Any] | None = None) -> None:
        self.clock.begin_step(step)
        self.rate = read.learning_rate(self)

    def on_train_batch_end(self, step: int, logs: dict[str, Any] | None = None) -> None:
        self.clock.count(step, logs["batch_size"] if logs else 0)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.clock.end_epoch()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.clock.end()
