"""A second evaluation after each one: of other weights, or of other images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import paddle

from resnet_fit.callbacks.clock import Clock, Clocked
from resnet_fit.callbacks.relay import Relay


class SecondEvaluation(Clocked):
    """Evaluates again within `applied`, and adds the metrics under names that begin with `prefix`.

    To be listed before the callbacks that are to see it.

    Args:
        evaluation: the batches to judge on, as `fit` takes them; None judges nothing.
        clock: one that is shared with other callbacks; its own by default.

    Attributes:
        watchers: callbacks to be told of its batches as well, such as a progress bar.
        name: what is evaluated, in a word for people.
        views: how often the network computes each image.
    """

    phase: ClassVar[str] = "evaluate"
    prefix: ClassVar[str]
    name: ClassVar[str]
    views: ClassVar[int] = 1

    def __init__(self, evaluation: Iterable[Any] | None = None, clock: Clock | None = None) -> None:
        super().__init__(clock)
        self.evaluation = evaluation
        self.watchers: Sequence[paddle.callbacks.Callback] = ()

    def applied(self) -> AbstractContextManager[None]:
        """A context in which the network computes what the second evaluation is of."""
        raise NotImplementedError

    def evaluate(self, batches: Iterable[Any], what: str = "evaluate") -> dict[str, Any]:
        """The metrics of `paddle.Model.evaluate` within `applied`, with the prefix."""
        relay = Relay(self.watchers, f"{what} {self.name}", self.views)
        with self.applied():
            metrics = self.model.evaluate(batches, verbose=0, callbacks=[relay])
        return {self.prefix + name: value for name, value in metrics.items()}

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        super().on_train_begin(logs)
        self._declare()

    def on_train_batch_begin(self, step: int, logs: dict[str, Any] | None = None) -> None:
        for name in [n for n in logs or () if n.startswith(self.prefix)]:  # of the epoch before
            del (logs or {})[name]
        super().on_train_batch_begin(step, logs)

    def on_eval_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._declare()

    def on_eval_end(self, logs: dict[str, Any] | None = None) -> None:
        if logs is None or self.evaluation is None:
            return
        raw = dict(logs)
        judged = self.evaluate(self.evaluation)
        logs.clear()  # Paddle has one dictionary for all evaluations: now the second's
        logs.update(raw | judged)

    def _declare(self) -> None:
        """Add its names to the list of metrics that all callbacks share."""
        if self.evaluation is not None:
            names = self.params["metrics"]
            own = [self.prefix + name for name in self.model._metrics_name()]
            names += [name for name in dict.fromkeys(own) if name not in names]
