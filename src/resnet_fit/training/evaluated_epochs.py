"""Which epochs are evaluated."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass


@dataclass(frozen=True)
class EvaluatedEpochs:
    """The epochs of a run, counted from 1, that an evaluation follows: some, and always the last.

    Args:
        epochs: of the whole run.
        every: epochs from one evaluation to the next.
    """

    epochs: int
    every: int = 1

    def __contains__(self, epoch: object) -> bool:
        return epoch == self.epochs or (isinstance(epoch, int) and epoch % self.every == 0)

    def after(self, epoch: int) -> int:
        """How many of the epochs after this one are evaluated."""
        return sum(later in self for later in range(epoch + 1, self.epochs + 1))


class EvaluationFrequency(int):
    """The ``eval_freq`` of `paddle.Model.fit` for any choice of epochs.

    `fit` evaluates after its epoch ``i``, counted from 0 in each call, where ``i % eval_freq``
    is 0. By itself that is the first epoch of each call, and rarely the last.

    Args:
        evaluated: the epochs of the whole run to evaluate, counted from 1.
        done: epochs of the run before this call.
    """

    def __new__(cls, evaluated: Container[int], done: int) -> EvaluationFrequency:
        frequency = super().__new__(cls, 1)
        frequency.evaluated, frequency.done = evaluated, done
        return frequency

    evaluated: Container[int]
    done: int

    def __rmod__(self, index: int) -> int:
        return 0 if self.done + index + 1 in self.evaluated else 1
