"""An average of the weights over the last steps, evaluated beside the weights themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import paddle
from paddle import Tensor

from resnet_fit.callbacks import logs as read
from resnet_fit.callbacks.clock import Clock
from resnet_fit.callbacks.second_evaluation import SecondEvaluation
from resnet_fit.checkpoints.optimizer_state import Arrays
from resnet_fit.errors import require


class WeightAverage(SecondEvaluation):
    """Exponential moving average (EMA) of all parameters and running statistics.

    After each optimizer step ``average = decay * average + (1 - decay) * weight``; in the first
    steps the decay is no more than (1 + n) / (10 + n), so that the random start is soon forgotten.
    A step that was left out does not count. Polyak and Juditsky 1992; in this form Tan and Le 2019,
    "EfficientNet".

    After each evaluation of the weights the average is evaluated as well, and all later callbacks
    get its metrics under the same names with ``ema_`` in front. To be listed first.

    Args:
        evaluation: the batches to judge the average on, as `fit` takes them; None judges nothing.
        decay: between 0 and 1; 1 / (1 - decay) is about how many steps are averaged over.
        warm_up: whether the decay grows in the first steps.
        clock: one that is shared with other callbacks; its own by default.
    """

    prefix: ClassVar[str] = "ema_"
    name: ClassVar[str] = "average"

    def __init__(
        self,
        evaluation: Iterable[Any] | None = None,
        decay: float = 0.999,
        warm_up: bool = True,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(evaluation, clock)
        require(0 < decay < 1, "decay", decay, "more than 0 and less than 1")
        self.decay = decay
        self.warm_up = warm_up
        self.updates = 0
        self.average: dict[str, Tensor] = {}
        self._loaded: Arrays = {}
        self._own: dict[str, Tensor] = {}  # while the network has the average

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._prepare()
        super().on_train_begin(logs)

    def on_train_batch_end(self, step: int, logs: dict[str, Any] | None = None) -> None:
        super().on_train_batch_end(step, logs)
        if self.ends_group and read.has_stepped(self):
            self.update()

    def update(self) -> None:
        """Add the present weights to the average."""
        self.updates += 1
        decay = self.decay
        if self.warm_up:
            decay = min(decay, (1 + self.updates) / (10 + self.updates))
        with paddle.no_grad():
            for name, tensor in _averaged(self.model.network).items():
                average = self.average[name]
                average.scale_(decay)
                average.add_(tensor.detach().astype("float32") * (1 - decay))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """A context in which the network has the averaged weights instead of its own."""
        self._prepare()
        tensors = _averaged(self.model.network)
        self._own = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        try:
            for name, average in self.average.items():
                tensors[name].set_value(average.astype(tensors[name].dtype))
            yield
        finally:
            self.withdraw()

    def withdraw(self) -> None:
        """Give the network its own weights back, if it has the average."""
        tensors = _averaged(self.model.network)
        for name, own in self._own.items():
            tensors[name].set_value(own)
        self._own = {}

    def weights(self) -> dict[str, Tensor]:
        """The average as a state dict, complete for `paddle.Model.load`."""
        return {**self.model.network.state_dict(), **self.average}

    def set_weights(self, weights: Arrays) -> None:
        """Go on from a saved average."""
        self._loaded = {n: np.asarray(v) for n, v in weights.items() if "float" in str(v.dtype)}

    def _prepare(self) -> None:
        """Start from the network's weights, or from those that were loaded."""
        if not self.average:
            self.average = {
                name: tensor.detach().astype("float32").clone()
                for name, tensor in _averaged(self.model.network).items()
            }
        for name, value in self._loaded.items():
            self.average[name].set_value(value)
        self._loaded = {}

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates}

    def set_state_dict(self, state: dict[str, Any]) -> None:
        self.updates = state["updates"]


def _averaged(network: paddle.nn.Layer) -> dict[str, Tensor]:
    """Parameters and buffers that are real numbers, by their structured names."""
    return {n: t for n, t in network.state_dict().items() if "float" in str(t.dtype)}
