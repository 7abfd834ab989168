"""Ending a training that no longer gets better."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from resnet_fit.callbacks.optional.callback import CallbackPart, Context
from resnet_fit.config.problems import Problem
from resnet_fit.config.registry import part
from resnet_fit.config.settings import NonNegative, PositiveInt
from resnet_fit.training.evaluated_epochs import EvaluatedEpochs

if TYPE_CHECKING:
    import paddle

    from resnet_fit.runs.config import Config


@part("callback", "early_stopping")
class EarlyStopping(CallbackPart):
    """Ends the training after evaluations that did not beat the best ``checkpoint.monitor``.

    Args:
        patience: so many evaluations, one each ``training.evaluate_every`` epochs.
        min_delta: an evaluation must beat the best one by more than this.
    """

    patience: PositiveInt
    min_delta: NonNegative = 0.0

    def no_effect(self, config: Config) -> Iterator[Problem]:
        training = config.training
        evaluations = EvaluatedEpochs(training.epochs, training.evaluate_every).after(0)
        if self.patience >= evaluations:
            yield Problem(
                ("patience",),
                f"{self.patience}, but this training makes only {evaluations} evaluations",
            )

    def build(self, context: Context) -> paddle.callbacks.Callback:
        from resnet_fit.callbacks.early_stopping import EarlyStopping

        return EarlyStopping(
            context.config.checkpoint.monitor,
            patience=self.patience,
            min_delta=self.min_delta,
            clock=context.clock,
        )
