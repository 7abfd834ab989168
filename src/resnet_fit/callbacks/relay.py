"""Lets progress bars and interruptions follow evaluations beside those of `fit`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import paddle


class Relay(paddle.callbacks.Callback):
    """Tells other callbacks of the batches of a separate evaluation, but not of its result.

    For the ``callbacks`` of `paddle.Model.evaluate`. Progress bars and interruptions can follow
    such an evaluation, while callbacks that keep results, such as `History`, are not told of it.

    Args:
        watchers: the callbacks to tell; they keep their own ``params``.
        evaluation: what is evaluated, told as ``logs["evaluation"]`` at the begin.
        views: how often the network computes each image, told as ``logs["views"]``.
    """

    def __init__(
        self, watchers: Sequence[paddle.callbacks.Callback], evaluation: str, views: int = 1
    ) -> None:
        super().__init__()
        self.watchers = watchers
        self.told = {"evaluation": evaluation, "views": views}

    def on_eval_begin(self, logs: dict[str, Any] | None = None) -> None:
        for watcher in self.watchers:
            watcher.on_eval_begin({**(logs or {}), **self.told})

    def on_eval_batch_end(self, step: int, logs: dict[str, Any] | None = None) -> None:
        for watcher in self.watchers:
            watcher.on_eval_batch_end(step, logs)
