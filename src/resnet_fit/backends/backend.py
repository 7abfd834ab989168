"""The backend that the layers of a network share."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import paddle

from resnet_fit.backends import channels_last, plain


class Backend:
    """A backend by its name: can be copied and pickled with a network, which a module cannot.

    The layers of one network share one. ``dtype`` is as of `resnet_fit.backends.use_backend`.
    """

    def __init__(self, name: str = "paddle", dtype: str = "float32") -> None:
        self.name, self.dtype = name, dtype

    @property
    def operations(self) -> Any:
        """The operations that layers call.

        oneDNN's operations cannot be part of a static graph: where Paddle makes one, as
        `paddle.jit.save` and `paddle.Model.save` do, Paddle's own take their place.
        """
        if self.name == "onednn" and paddle.in_dynamic_mode():
            return self._onednn
        return channels_last if self.name == "channels_last" else plain

    @cached_property
    def _onednn(self) -> Any:
        from resnet_fit.backends.onednn.operations import OneDNN

        return OneDNN(self.dtype)


class HasBackend:
    """A layer that computes by a backend."""

    backend = Backend()

    @property
    def operations(self) -> Any:
        """Those of the backend that computes now."""
        return self.backend.operations
