"""What several processes that train one network do at the same moment."""

from __future__ import annotations

import hashlib
from typing import Any, ClassVar

import paddle

from resnet_fit import parallel
from resnet_fit.callbacks.clock import Clocked
from resnet_fit.errors import RunFailed


class GroupSchedule(Clocked, paddle.callbacks.LRScheduler):
    """Steps the learning rate by the batches of all processes, where `fit` sees those of one.

    A step that ends with batch ``b`` of the whole run has the rate of that batch, as in one process
    that accumulates. It is a `paddle.callbacks.LRScheduler` since `fit` would otherwise add one.
    """

    phase: ClassVar[str] = "schedule"

    def on_train_batch_begin(self, step: int, logs: dict[str, Any] | None = None) -> None:
        clock, turn = self.clock, self.clock.turn
        if turn is not None and turn.ends_group:
            self._schedule.step(clock.step - clock.epoch_step + turn.end - 1)
        super().on_train_batch_begin(step, logs)

    def on_train_batch_end(self, step: int, logs: dict[str, Any] | None = None) -> None:
        super().on_train_batch_end(step, logs)
        if self.ends_group:
            self._schedule.step(self.clock.step)

    @property
    def _schedule(self) -> Any:
        return self.model._optimizer._learning_rate


class SameState(Clocked):
    """Compares weights and buffers of all processes after the first step and after each epoch.

    They are equal to the last bit unless something moved them in one process alone: a callback, or
    a state of a network's own that is not a batch norm's. It also lets the processes meet before
    each epoch and each evaluation, so that the first one may take its time before.

    Raises:
        RunFailed: they differ.
    """

    phase: ClassVar[str] = "evaluate"

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._compared = False

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_begin(epoch, logs)
        parallel.meet()

    def on_train_batch_end(self, step: int, logs: dict[str, Any] | None = None) -> None:
        super().on_train_batch_end(step, logs)
        if self.ends_group and not self._compared:
            self._compare()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        self._compare()

    def on_eval_begin(self, logs: dict[str, Any] | None = None) -> None:
        parallel.meet()

    def _compare(self) -> None:
        self._compared = True
        tensors = self.model.network.state_dict()
        digests = [_digest(tensor.numpy().tobytes()) for tensor in tensors.values()]
        most = parallel.largest(digests)
        least = [-number for number in parallel.largest([-number for number in digests])]
        for name, high, low in zip(tensors, most, least, strict=True):
            if high != low:
                raise RunFailed(
                    f"{name} is not the same in all processes after step {self.clock.step}: "
                    "something changes it in one of them alone, such as a callback or a buffer "
                    "that is not a batch norm's; train with one process"
                )


def _digest(content: bytes) -> float:
    """A number that float64 holds exactly."""
    return float(int.from_bytes(hashlib.blake2b(content, digest_size=6).digest(), "big"))
