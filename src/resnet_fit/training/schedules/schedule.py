"""What every schedule has: a warm-up, and a share of the full rate for each moment."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from resnet_fit.config.problems import Problem
from resnet_fit.config.settings import NonNegative, Part, Share

if TYPE_CHECKING:
    import paddle

    from resnet_fit.runs.config import Config


class Schedule(Part):
    """The learning rate over a training, as a share of the full rate.

    A warm-up is multiplied onto the schedule, whose milestones stay where they are (Goyal et al.
    2017, section 2.2).

    Args:
        warmup_epochs: epochs in which the rate rises linearly to its full share.
        warmup_start: the share of the full rate that a warm-up starts from.
    """

    warmup_epochs: NonNegative = 0.0
    warmup_start: Share = 0.0

    def problems(self, config: Config | None) -> Iterator[Problem]:
        if config is not None and self.warmup_epochs >= config.training.epochs:
            yield Problem(
                ("warmup_epochs",),
                f"expected less than training.epochs ({config.training.epochs}), received "
                f"{self.warmup_epochs:g}",
            )

    def no_effect(self, config: Config) -> Iterator[Problem]:
        if self.warmup_start and not self.warmup_epochs:
            yield Problem(("warmup_start",), "without schedule.warmup_epochs")

    def share(self, epoch: float, epochs: float) -> float:
        """The share of the full rate after ``epoch`` of ``epochs``, a fraction too; no warm-up."""
        raise NotImplementedError

    def rate(self, full: float, epochs: float, steps: int) -> paddle.optimizer.lr.LRScheduler:
        """A Paddle scheduler that is stepped after each batch, as `paddle.Model.fit` does.

        Args:
            full: the full learning rate.
            epochs: of the whole training.
            steps: batches of an epoch.
        """
        import paddle

        def share(step: int) -> float:
            epoch = step / steps
            if not self.warmup_epochs:
                return self.share(epoch, epochs)
            warm = linear(self.warmup_start, 1.0, epoch / self.warmup_epochs)
            return warm * self.share(epoch, epochs)

        return paddle.optimizer.lr.LambdaDecay(full, share)


def linear(start: float, end: float, progress: float) -> float:
    """Between two values at a progress of 0 to 1, and ``end`` beyond."""
    return start + (end - start) * min(progress, 1.0)
