"""A batch whose gradients are no numbers is left out, as if it had not been drawn."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import paddle

from resnet_fit.callbacks import logs as read
from resnet_fit.callbacks.clock import Clock, Clocked
from resnet_fit.errors import RunFailed


class NaNSkip(Clocked):
    """Leaves out the steps whose loss or gradients are NaN or infinite, and says so.

    The optimizer does not step, and running statistics and metrics are put back. To be listed
    first. Not for gradients accumulated over several batches.

    Args:
        most: so many in a row are no accident: the run stops.
        clock: one that is shared with other callbacks; its own by default.

    Raises:
        RunFailed: ``most`` steps in a row were left out.
    """

    def __init__(self, most: int = 20, clock: Clock | None = None) -> None:
        super().__init__(clock)
        self.most = most
        self.skipped = 0
        self._in_a_row = 0
        self._refused = False
        self._statistics: list[tuple[paddle.Tensor, paddle.Tensor]] = []
        self._metrics: list[dict[str, Any]] = []

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        super().on_train_begin(logs)
        optimizer = self.model._optimizer
        minimize = optimizer.minimize

        def minimize_if_finite(*arguments: Any, **options: Any) -> Any:
            self._refused = not _finite_gradients(optimizer)
            return None if self._refused else minimize(*arguments, **options)

        optimizer.minimize = minimize_if_finite  # what `paddle.Model` calls for each step

    def on_train_batch_begin(self, step: int, logs: dict[str, Any] | None = None) -> None:
        super().on_train_batch_begin(step, logs)
        self._refused = False
        tensors = self.model.network.state_dict().values()
        # Paddle's batch norm keeps its running statistics among the parameters.
        self._statistics = [(t, t.clone()) for t in tensors if t.stop_gradient]
        self._metrics = [m.state_dict() for m in self._restorable()]

    def on_train_batch_end(self, step: int, logs: dict[str, Any] | None = None) -> None:
        super().on_train_batch_end(step, logs)
        if not self._refused and math.isfinite(read.metrics(self, logs).get("loss", 0.0)):
            self._in_a_row = 0
            return
        self.skipped += 1
        self._in_a_row += 1
        if self._in_a_row >= self.most:
            raise RunFailed(
                f"the gradients were no numbers for {self.most} steps in a row, up to step "
                f"{self.clock.step} in epoch {self.clock.epoch}, at a learning rate of "
                f"{self.rate:g}; the last checkpoint may be from before that. Try a lower "
                "optimizer.learning_rate, a warm-up, or training.clip_norm"
            )
        for tensor, before in self._statistics:
            tensor.set_value(before)
        for metric, state in zip(self._restorable(), self._metrics, strict=True):
            metric.set_state_dict(state)
        self._correct(logs)
        warnings.warn(
            f"epoch {self.clock.epoch}, step {self.clock.step}: left out, its gradients were no "
            f"numbers ({self.skipped} such steps so far)",
            stacklevel=1,
        )

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.close()
        super().on_train_end(logs)

    def close(self) -> None:
        """Give the optimizer its own step back: done at the end of `fit`, needed after an error."""
        optimizer = getattr(self.model, "_optimizer", None)
        if optimizer is not None:
            vars(optimizer).pop("minimize", None)

    def state_dict(self) -> dict[str, Any]:
        return {"skipped": self.skipped, "in_a_row": self._in_a_row}

    def set_state_dict(self, state: dict[str, Any]) -> None:
        self.skipped, self._in_a_row = state["skipped"], state["in_a_row"]

    def _restorable(self) -> list[Any]:
        return [m for m in self.model._metrics if hasattr(m, "set_state_dict")]

    def _correct(self, logs: dict[str, Any] | None) -> None:
        """Let the metrics speak for themselves again, without this step."""
        for metric in self._restorable() if logs is not None else ():
            values = np.atleast_1d(metric.accumulate())
            for name, value in zip(np.atleast_1d(metric.name()), values, strict=True):
                (logs or {})[str(name)] = float(value)


def _finite_gradients(optimizer: paddle.optimizer.Optimizer) -> bool:
    """A sum is no number if any of its terms is none; one pass over each gradient."""
    sums = [p.grad.astype("float32").sum() for p in optimizer._parameter_list if p.grad is not None]
    return bool(paddle.isfinite(paddle.add_n(sums))) if sums else True
