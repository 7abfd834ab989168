"""What the parts of a network hold of their engine."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import paddle

from resnet_fit.backends import channels_last, framework


class Engine:
    """An engine by its name: can be copied and pickled with a network, which a module cannot.

    The parts of one network share one. ``dtype`` is as of `resnet_fit.backends.use_backend`.
    """

    def __init__(self, name: str = "framework", dtype: str = "float32") -> None:
        self.name, self.dtype = name, dtype

    @property
    def operations(self) -> Any:
        """What computes now.

        oneDNN's operations cannot be part of a static graph: where Paddle makes one, as
        `paddle.jit.save` and `paddle.Model.save` do, Paddle's own take their place.
        """
        if self.name == "onednn" and paddle.in_dynamic_mode():
            return self._onednn
        return channels_last if self.name == "channels_last" else framework

    @cached_property
    def _onednn(self) -> Any:
        from resnet_fit.backends.onednn import OneDNN

        return OneDNN(self.dtype)


class ByEngine:
    """What a layer has that computes by an engine."""

    engine = Engine()

    @property
    def operations(self) -> Any:
        """Those of the engine that computes now."""
        return self.engine.operations
