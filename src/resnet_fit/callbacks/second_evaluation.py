"""Another evaluation after each one, beside it: of other weights, or of other images."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import paddle

from resnet_fit.callbacks.clock import Clock, Clocked


class SecondEvaluation(Clocked):
    """Evaluates once more while `applied`, and adds what comes out under names with `prefix`.

    To be listed before the callbacks that are to see it.

    Args:
        evaluation: the batches to judge on, as `fit` takes them; None judges nothing.
        clock: one that is shared with other callbacks; its own by default.
    """

    prefix: ClassVar[str]

    def __init__(self, evaluation: Iterable[Any] | None = None, clock: Clock | None = None) -> None:
        super().__init__(clock)
        self.evaluation = evaluation
        self.watching: list[paddle.callbacks.Callback] = []
        """Callbacks for the batches of this evaluation, such as one that breaks it off."""

    def applied(self) -> AbstractContextManager[None]:
        """Let the network compute what is to be judged, meanwhile."""
        raise NotImplementedError

    def evaluate(self, batches: Iterable[Any]) -> dict[str, Any]:
        """What `paddle.Model.evaluate` says while `applied`."""
        with self.applied():
            return self.model.evaluate(batches, verbose=0, callbacks=self.watching)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        super().on_train_begin(logs)
        if self.evaluation is not None:
            names = self.params["metrics"]  # one list, of all callbacks
            own = [self.prefix + name for name in self.model._metrics_name()]
            names += [name for name in dict.fromkeys(own) if name not in names]

    def on_train_batch_begin(self, step: int, logs: dict[str, Any] | None = None) -> None:
        for name in [n for n in logs or () if n.startswith(self.prefix)]:  # of the epoch before
            del (logs or {})[name]
        super().on_train_batch_begin(step, logs)

    def on_eval_end(self, logs: dict[str, Any] | None = None) -> None:
        if logs is None or self.evaluation is None:
            return
        raw = dict(logs)
        judged = self.evaluate(self.evaluation)
        logs.clear()  # Paddle has one dictionary for all evaluations, and now it holds that one
        logs.update(raw | {self.prefix + name: value for name, value in judged.items()})
