"""Fewer threads while other processes need the cores."""

from __future__ import annotations

import time
import warnings
from typing import Any

import paddle

from resnet_fit.backends.threads import set_threads, threads
from resnet_fit.callbacks.thread_policy import ThreadPolicy
from resnet_fit.machine import Neighbours


class AdaptThreads(paddle.callbacks.Callback):
    """Changes the number of threads between steps, as `ThreadPolicy` decides.

    Results then differ by rounding from those with a fixed number, and depend on what else runs.

    Args:
        every: seconds over which the work of other processes is measured.
    """

    phase = "guard"

    def __init__(self, every: float = 1.0) -> None:
        super().__init__()
        self.every = every
        self.policy: ThreadPolicy | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if paddle.get_device() != "cpu":
            warnings.warn("AdaptThreads is for a CPU; on a GPU it changes little", stacklevel=1)
        self.policy = ThreadPolicy(threads())
        self._taken = 0.0
        self._watch()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        assert self.policy is not None
        self.policy.restart()
        set_threads(self.policy.threads)
        self._watch()

    def on_train_batch_begin(self, step: int, logs: dict[str, Any] | None = None) -> None:
        self._begun = time.perf_counter()

    def on_train_batch_end(self, step: int, logs: dict[str, Any] | None = None) -> None:
        assert self.policy is not None
        now = time.perf_counter()
        if now - self._since >= self.every:
            self._taken = self._neighbours.cores_taken()
            self._watch()
        images = logs["batch_size"] if logs else 1
        set_threads(self.policy.step(now - self._begun, images, self._taken))

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.close()

    def close(self) -> None:
        """Compute with all threads again: done by `fit`, and needed after an error."""
        if self.policy is not None:
            set_threads(self.policy.all)

    def _watch(self) -> None:
        self._neighbours, self._since = Neighbours(), time.perf_counter()
