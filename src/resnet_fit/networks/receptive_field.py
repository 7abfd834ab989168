"""How much of an image the stages of a network see.

The network computes once with receptive fields in place of images, by operations that know how each
one widens a field (Araujo et al. 2019, "Computing receptive fields of convolutional neural
networks"). Nothing is multiplied, and the size of the images does not matter.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import paddle
from paddle import nn

from resnet_fit.backends.backend import HasBackend
from resnet_fit.networks.blocks import BackendLayer
from resnet_fit.networks.complexity import in_mode

Pair = tuple[int, int]

# They look at one pixel at a time. So do norms here, as is usual: what statistics over an image
# tell of other pixels does not count.
_OF_ONE_PIXEL = (
    nn.BatchNorm2D,
    nn.SyncBatchNorm,
    nn.GroupNorm,
    nn.InstanceNorm2D,
    nn.Dropout,
    nn.Dropout2D,
    nn.Identity,
    nn.ReLU,
    nn.ReLU6,
    nn.PReLU,
    nn.LeakyReLU,
    nn.GELU,
    nn.Silu,
    nn.Hardswish,
)


@dataclass(frozen=True)
class Field:
    """What one value of a layer's output sees.

    Attributes:
        size: pixels of the image, high and wide.
        stride: pixels of the image from one value to the next.
    """

    size: Pair = (1, 1)
    stride: Pair = (1, 1)

    def through(self, kernel: Pair, stride: Pair, dilation: Pair = (1, 1)) -> Field:
        """The field behind a convolution or pool."""
        spans = ((k - 1) * d for k, d in zip(kernel, dilation, strict=True))
        sizes = (f + s * j for f, s, j in zip(self.size, spans, self.stride, strict=True))
        strides = (j * s for j, s in zip(self.stride, stride, strict=True))
        return Field((next(sizes), next(sizes)), (next(strides), next(strides)))

    def joined(self, other: Field) -> Field:
        """The field of a sum of both, or of their channels together."""
        if self.stride != other.stride:
            raise _Stop
        height, width = (max(sizes) for sizes in zip(self.size, other.size, strict=True))
        return Field((height, width), self.stride)


class _Stop(Exception):
    """Fields end here: at a layer whose field cannot be told, or at the mean over all pixels."""


def receptive_fields(network: nn.Layer, image_shape: tuple[int, int, int]) -> dict[str, Field]:
    """The fields of a network's outer layers by name, up to the mean over all pixels.

    They end at a layer whose field cannot be told, as that of a user's own kind. For a network that
    is itself no part of this library there are none.

    Args:
        image_shape: ``(C, H, W)`` of images that the network takes.
    """
    is_ours = isinstance(network, HasBackend)
    if not is_ours:
        return {}
    operations = _Fields(network)
    with (
        suppress(Exception),  # parts of a user's own do anything with what is no tensor
        _computing_by(operations, network),
        in_mode(network, training=False),
        paddle.no_grad(),
    ):
        network(paddle.zeros([1, *image_shape]))
    return operations.found


class _Fields:
    """The operations of a backend, on fields."""

    def __init__(self, network: nn.Layer) -> None:
        self._names = {id(layer): name for name, layer in network.named_children()}
        self.found: dict[str, Field] = {}

    def enter(self, images: Any) -> Field:
        return images if isinstance(images, Field) else Field()

    def leave(self, x: Field) -> Field:
        return x

    def call(self, layer: nn.Layer, x: Field) -> Field:
        if type(layer) in _OF_ONE_PIXEL:
            return self._note(layer, x)
        if isinstance(layer, BackendLayer) and type(layer).forward is BackendLayer.forward:
            return self._note(layer, layer.compute(x))
        if type(layer) is nn.Sequential:
            for inner in layer:
                x = self.call(inner, x)
            return self._note(layer, x)
        return self.convolve(layer, x)

    def convolve(self, layer: nn.Layer, x: Field) -> Field:
        if not isinstance(layer, nn.Conv2D) or type(layer).forward is not nn.Conv2D.forward:
            raise _Stop
        kernel = tuple(layer.weight.shape[2:])
        return self._note(layer, x.through(kernel, _pair(layer._stride), _pair(layer._dilation)))

    def normalize(self, layer: nn.Layer, x: Field, relu: bool = False) -> Field:
        return self.call(layer, x)

    def add(self, x: Field, shortcut: Field) -> Field:
        return x.joined(shortcut)

    def fork(self, x: Field) -> tuple[Field, Field]:
        return x, x

    def max_pool(self, x: Field) -> Field:
        return x.through((3, 3), (2, 2))

    def average_pool(self, x: Field, ceil: bool = False) -> Field:
        return x.through((2, 2), (2, 2))

    def concat(self, x: Field, new: Field) -> Field:
        return x.joined(new)

    def zero_pad(self, x: Field, new_channels: int, stride: int) -> Field:
        return x.through((1, 1), (stride, stride))

    def mean(self, x: Field) -> Any:
        raise _Stop

    def _note(self, layer: nn.Layer, field: Field) -> Field:
        if id(layer) in self._names:
            self.found[self._names[id(layer)]] = field
        return field


@contextmanager
def _computing_by(operations: _Fields, network: nn.Layer) -> Iterator[None]:
    """All parts of a network compute by these operations meanwhile.

    Hooks, which change nothing, let a part be called as any other layer is, so that its field is
    noted.
    """
    parts: list[Any] = [p for p in network.sublayers(True) if isinstance(p, HasBackend)]
    before = [part.backend for part in parts]
    hooks = [child.register_forward_post_hook(lambda *_: None) for child in network.children()]
    for part in parts:
        part.backend = SimpleNamespace(operations=operations)
    try:
        yield
    finally:
        for part, backend in zip(parts, before, strict=True):
            part.backend = backend
        for hook in hooks:
            hook.remove()


def _pair(value: Any) -> Pair:
    height, width = (value, value) if isinstance(value, int) else value
    return height, width
