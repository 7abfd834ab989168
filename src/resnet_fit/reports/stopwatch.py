"""Where the time of a training step goes, by the events that `paddle.Model.fit` makes."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import paddle

WAITING, FORWARD, LOSS, BACKWARD = "waiting for data", "forward", "loss", "backward"
OPTIMIZER, METRICS, CALLBACKS, REST = "optimizer", "metrics", "callbacks", "the rest"
PHASES = (WAITING, FORWARD, LOSS, BACKWARD, OPTIMIZER, METRICS, CALLBACKS, REST)


@dataclass
class Stopwatch:
    """Adds up the seconds of each phase; one phase lasts until the next one begins.

    Args:
        device: where the training computes: a GPU is waited for at each mark, since its work is
            only queued before.

    Attributes:
        marks: how many phases have begun.
    """

    device: str = "cpu"
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    marks: int = 0
    listener: Callable[[str], object] | None = None
    _phase: str = REST
    _since: float = field(default_factory=time.perf_counter)

    def now(self) -> float:
        """The time, once all work given to the device is done."""
        if self.device.startswith("gpu"):
            paddle.device.synchronize()
        return time.perf_counter()

    def mark(self, phase: str) -> None:
        """A phase begins."""
        now = self.now()
        self.seconds[self._phase] += now - self._since
        self._phase, self._since = phase, now
        self.marks += 1
        if self.listener is not None:
            self.listener(phase)

    def take(self) -> dict[str, float]:
        """Return the seconds since the last call and start again at zero."""
        taken, self.seconds = dict(self.seconds), defaultdict(float)
        return taken

    def follow(self, model: paddle.Model) -> None:
        """Let the parts of a model mark the phases of its training from now on."""
        model.network.register_forward_pre_hook(lambda *_: self.mark(FORWARD))
        model.network.register_forward_post_hook(lambda *_: self.mark(LOSS))
        model._loss = self._then(model._loss, BACKWARD)
        optimizer = model._optimizer
        optimizer.minimize = self._first(optimizer.minimize, OPTIMIZER)
        for metric in model._metrics[:1]:
            metric.compute = self._first(metric.compute, METRICS)

    def callbacks(self, inner: Sequence[paddle.callbacks.Callback]) -> list[Any]:
        """Callbacks for `fit`, between two that mark their time."""
        return [_Mark(self, CALLBACKS, CALLBACKS), *inner, _Mark(self, REST, WAITING)]

    def _first(self, call: Callable[..., Any], phase: str) -> Callable[..., Any]:
        def marked(*arguments: Any, **options: Any) -> Any:
            self.mark(phase)
            return call(*arguments, **options)

        return marked

    def _then(self, call: Callable[..., Any], phase: str) -> Callable[..., Any]:
        def marked(*arguments: Any, **options: Any) -> Any:
            result = call(*arguments, **options)
            self.mark(phase)
            return result

        return marked


class _Mark(paddle.callbacks.Callback):
    """Marks the beginnings of phases where it stands among callbacks."""

    def __init__(self, stopwatch: Stopwatch, before: str, after: str) -> None:
        super().__init__()
        self._stopwatch, self._before, self._after = stopwatch, before, after

    def on_train_batch_begin(self, step: int, logs: dict[str, Any] | None = None) -> None:
        self._stopwatch.mark(self._before)

    def on_train_batch_end(self, step: int, logs: dict[str, Any] | None = None) -> None:
        self._stopwatch.mark(self._after)
