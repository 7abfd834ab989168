"""Leaves out batches that give NaN or infinite numbers, as if they had not been drawn."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import numpy as np
import paddle

from resnet_fit.callbacks.clock import Clock, Clocked
from resnet_fit.callbacks.nan_guard import diverged
from resnet_fit.training.finite import all_finite


class NaNSkip(Clocked):
    """Leaves out steps with NaN or infinite numbers in loss, gradients or running statistics.

    It says so each time. The optimizer does not step, and running statistics and metrics are put
    back: the forward pass had moved them already. To be listed first. Not for gradients accumulated
    over several batches. Finite gradients may still make weights infinite, which `NaNGuard` sees.

    Args:
        most: the run stops after so many in a row, or after an epoch of nothing else.
        clock: one that is shared with other callbacks; its own by default.

    Raises:
        Diverged: ``most`` steps in a row were left out, or all steps of an epoch.
    """

    phase: ClassVar[str] = "guard"

    def __init__(self, most: int = 20, clock: Clock | None = None) -> None:
        super().__init__(clock)
        self.most = most
        self.skipped = 0
        self._in_a_row = 0
        self._statistics: list[tuple[paddle.Tensor, paddle.Tensor]] = []
        self._metrics: list[dict[str, Any]] = []

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        super().on_train_begin(logs)
        optimizer = self.model._optimizer
        minimize = optimizer.minimize

        def minimize_if_finite(loss: paddle.Tensor, *arguments: Any, **options: Any) -> Any:
            gradients = [p.grad for p in optimizer._parameter_list if p.grad is not None]
            statistics = [tensor for tensor, _ in self._statistics]
            optimizer.left_out = not all_finite([loss, *gradients, *statistics])
            return ([], []) if optimizer.left_out else minimize(loss, *arguments, **options)

        optimizer.left_out = False
        optimizer.minimize = minimize_if_finite  # what `paddle.Model` calls for each step

    def on_train_batch_begin(self, step: int, logs: dict[str, Any] | None = None) -> None:
        super().on_train_batch_begin(step, logs)
        tensors = self.model.network.state_dict().values()
        # Paddle's batch norm keeps its running statistics among the parameters.
        self._statistics = [(t, t.clone()) for t in tensors if t.stop_gradient]
        self._metrics = [m.state_dict() for m in self._restorable()]

    def on_train_batch_end(self, step: int, logs: dict[str, Any] | None = None) -> None:
        super().on_train_batch_end(step, logs)
        if not self.model._optimizer.left_out:
            self._in_a_row = 0
            return
        self.skipped += 1
        self._in_a_row += 1
        clock = self.clock
        clock.leave_out(logs["batch_size"] if logs else 0)
        whole_epoch = self._in_a_row >= clock.epoch_step == clock.epoch_steps
        if self._in_a_row >= self.most or whole_epoch:
            raise diverged(
                "loss, gradients or running statistics were NaN or infinite for "
                f"{self._in_a_row} steps in a row, the last one",
                self,
            )
        for tensor, before in self._statistics:
            tensor.set_value(before)
        for metric, state in zip(self._restorable(), self._metrics, strict=True):
            metric.set_state_dict(state)
        self._correct(logs)
        warnings.warn(
            f"epoch {self.clock.epoch}, step {self.clock.step}: left out: NaN or infinite numbers "
            f"({self.skipped} such steps so far)",
            stacklevel=1,
        )

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.close()
        super().on_train_end(logs)

    def close(self) -> None:
        """Restore the optimizer's own step: done at the end of `fit`, needed after an error."""
        optimizer = getattr(self.model, "_optimizer", None)
        if optimizer is not None:
            vars(optimizer).pop("minimize", None)
            vars(optimizer).pop("left_out", None)

    def state_dict(self) -> dict[str, Any]:
        return {"skipped": self.skipped, "in_a_row": self._in_a_row}

    def set_state_dict(self, state: dict[str, Any]) -> None:
        self.skipped, self._in_a_row = state["skipped"], state["in_a_row"]

    def _restorable(self) -> list[Any]:
        return [m for m in self.model._metrics if hasattr(m, "set_state_dict")]

    def _correct(self, logs: dict[str, Any] | None) -> None:
        """Write the metrics without this step into the logs."""
        for metric in self._restorable() if logs is not None else ():
            values = np.atleast_1d(metric.accumulate())
            for name, value in zip(np.atleast_1d(metric.name()), values, strict=True):
                (logs or {})[str(name)] = float(value)
