"""How long each layer of a network computes, forward and backward.

The parts of this library call their operations through a backend: its operations are timed where
they stand, so that fused ones stay fused, which a hook on a layer would undo. Layers that no
backend computes get hooks. The backward pass is timed by hooks on outputs: Paddle calls one just
before it goes back through what made that output.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import paddle
from paddle import Tensor, nn

from resnet_fit.backends.backend import Backend, HasBackend
from resnet_fit.networks.complexity import in_mode
from resnet_fit.reports.stopwatch import BACKWARD, LOSS, Stopwatch

# What a backend's operations without a layer of their own are called in tables.
_OPERATIONS = {
    "enter": "(images to the backend)",
    "leave": "(images from the backend)",
    "add": "(additions + ReLU)",
    "fork": "(forks)",
    "max_pool": "(max pool)",
    "average_pool": "(average pools)",
    "concat": "(concatenations)",
    "zero_pad": "(zero padding)",
    "mean": "(mean over pixels)",
}


class LayerTimes:
    """Times the layers of a network, while `enabled`.

    ``around`` makes a context for each call, by the layer's name.
    """

    def __init__(self, network: nn.Layer, image_shape: tuple[int, ...], watch: Stopwatch) -> None:
        self.enabled = False
        self.around: Callable[[str], AbstractContextManager[Any]] = nullcontext
        self._forward: dict[str, float] = defaultdict(float)
        self._backward: dict[str, float] = defaultdict(float)
        self._watch = watch
        self._names = {
            id(layer): name for name, layer in network.named_sublayers(include_self=True)
        }
        self._handled: set[int] = set()
        self._within = self._goes_back = False
        self._now_back, self._since = "", 0.0
        self._started: list[float] = []
        watch.listener = self._follow
        self._take_place(network)
        # Which layers does the backend compute?
        with in_mode(network, training=False), paddle.no_grad():
            network(paddle.zeros([1, *image_shape]))
        self._hook_others(network)

    def take(self) -> dict[str, tuple[float, float]]:
        """Return the seconds since the last call and start again at zero.

        By the name of a layer, forward and backward.
        """
        names = dict.fromkeys((*self._forward, *self._backward))
        taken = {name: (self._forward[name], self._backward[name]) for name in names}
        self._forward.clear()
        self._backward.clear()
        return taken

    def _take_place(self, network: nn.Layer) -> None:
        """Put the timed operations in the place of each backend."""
        places: dict[int, _TimedBackend] = {}
        for part in network.sublayers(include_self=True):
            if isinstance(part, HasBackend):
                backend = part.backend
                cast(Any, part).backend = places.setdefault(
                    id(backend), _TimedBackend(backend, self)
                )

    def _hook_others(self, network: nn.Layer) -> None:
        for layer in network.sublayers(include_self=True):
            is_part = isinstance(layer, HasBackend) or type(layer) is nn.Identity
            if is_part or id(layer) in self._handled or list(layer.children()):
                continue
            layer.register_forward_pre_hook(self._begin)
            layer.register_forward_post_hook(self._end)

    def _begin(self, layer: nn.Layer, _: Any) -> None:
        if self.enabled and not self._within:
            self._started.append(self._watch.now())

    def _end(self, layer: nn.Layer, _: Any, output: Any) -> None:
        if self.enabled and not self._within:
            name = self._names[id(layer)] or "(network)"
            self._note(name, self._started.pop(), _tensors(output))

    def time(self, name: str, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """What an operation gives, timed as a whole: what it calls is not timed again."""
        if not self.enabled or self._within:
            return call(*arguments, **options)
        self._within = True
        started = self._watch.now()
        try:
            with self.around(name):
                output = call(*arguments, **options)
        finally:
            self._within = False
        # A tensor that is only passed on was made by another.
        made = [t for t in _tensors(output) if not any(t is given for given in arguments)]
        if made:
            self._note(name, started, made)
        return output

    def time_layer(self, call: Callable[..., Any], layer: nn.Layer, x: Any, **options: Any) -> Any:
        """The same for an operation of a layer."""
        name = self._names.get(id(layer), type(layer).__name__)
        title = f"{name} + ReLU" if options.get("relu") else name
        self._handled |= {id(inner) for inner in layer.sublayers(include_self=True)}
        return self.time(title, call, layer, x, **options)

    def _note(self, name: str, started: float, made: list[Tensor]) -> None:
        self._forward[name] += self._watch.now() - started
        for tensor in made:
            if not tensor.stop_gradient:
                tensor.register_hook(lambda _: self._mark(name))

    def _follow(self, phase: str) -> None:
        """The backward pass begins with the loss's, and ends with the next phase."""
        if self._goes_back:
            self._mark("")
        self._goes_back = self.enabled and phase == BACKWARD
        if self._goes_back:
            self._now_back, self._since = f"({LOSS})", self._watch.now()

    def _mark(self, name: str) -> None:
        """From now on the backward pass goes through this layer."""
        now = self._watch.now()
        self._backward[self._now_back] += now - self._since
        self._now_back, self._since = name, now


def _tensors(output: Any) -> list[Tensor]:
    several = output if isinstance(output, (tuple, list)) else [output]
    return [tensor for tensor in several if isinstance(tensor, Tensor)]


class _TimedBackend:
    """Stands where a part of a network has its backend."""

    def __init__(self, backend: Backend, times: LayerTimes) -> None:
        self._backend, self._times = backend, times
        self._timed: dict[int, _TimedOperations] = {}

    @property
    def operations(self) -> _TimedOperations:
        now = self._backend.operations
        if id(now) not in self._timed:
            self._timed[id(now)] = _TimedOperations(now, self._times)
        return self._timed[id(now)]


class _TimedOperations:
    """A backend's operations, each of them timed."""

    def __init__(self, operations: Any, times: LayerTimes) -> None:
        for name, title in _OPERATIONS.items():
            setattr(self, name, _bound(times, title, getattr(operations, name)))
        self._operations, self._times = operations, times

    def call(self, layer: nn.Layer, x: Any) -> Any:
        return self._times.time_layer(self._operations.call, layer, x)

    def convolve(self, layer: nn.Layer, x: Any) -> Any:
        return self._times.time_layer(self._operations.convolve, layer, x)

    def normalize(self, layer: nn.Layer, x: Any, relu: bool = False) -> Any:
        return self._times.time_layer(self._operations.normalize, layer, x, relu=relu)


def _bound(times: LayerTimes, title: str, call: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *arguments, **options: times.time(title, call, *arguments, **options)
