"""Maximum and average pools."""

from __future__ import annotations

from typing import Any

import paddle
from paddle import Tensor
from paddle.autograd import PyLayer

from resnet_fit.backends.onednn import dnnl
from resnet_fit.backends.onednn.cache import CACHE
from resnet_fit.backends.onednn.differentiation import first_order
from resnet_fit.backends.onednn.dnnl import Description, Primitive
from resnet_fit.backends.onednn.memory import (
    TYPES,
    Pair,
    Shape,
    addresses,
    allocate,
    empty,
    shape_of,
    type_of,
)


@CACHE.once
class _Pooling:
    """A pool of stride 2; ``before`` and ``after``: rows and columns around the images."""

    def __init__(
        self, x: Shape, dtype: str, algorithm: int, kernel: int, before: Pair, after: Pair
    ) -> None:
        n, c, *sides = x
        rows, columns = (
            (sum(lengths) - kernel) // 2 + 1 for lengths in zip(sides, before, after, strict=True)
        )
        self.out: Shape = (n, c, rows, columns)
        images = dnnl.channels_last(x, TYPES[dtype])
        pooled = dnnl.channels_last(self.out, TYPES[dtype])
        geometry = tuple(
            dnnl.dims(*lengths) for lengths in ((2, 2), (kernel, kernel), (0, 0), before, after)
        )
        forward = Description(
            "pooling_forward",
            *(dnnl.FORWARD_TRAINING, algorithm, images, pooled),
            *geometry,
            dnnl.PLAIN,
        )
        backward = Description(
            "pooling_backward",
            *(algorithm, images, pooled),
            *geometry,
            forward.handle,
            dnnl.PLAIN,
        )
        # Which pixel each maximum was; nothing for averages.
        winners = forward.layout(dnnl.QUERY_WORKSPACE)
        self.workspace_size = dnnl.size(winners)
        kept = [(dnnl.WORKSPACE, winners)] if self.workspace_size else []
        self.forward = Primitive(
            forward, [(dnnl.SOURCE, images), (dnnl.DESTINATION, pooled), *kept]
        )
        self.backward = Primitive(
            backward, [(dnnl.DIFF_DESTINATION, pooled), (dnnl.DIFF_SOURCE, images), *kept]
        )


class Pool(PyLayer):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, algorithm: int, kernel: int, before: Pair, after: Pair
    ) -> Tensor:
        x = x.contiguous()
        passes = _Pooling(shape_of(x), type_of(x), algorithm, kernel, before, after)
        y = empty(passes.out, type_of(x))
        size = passes.workspace_size
        winners = [allocate([size], paddle.uint8)] if size else []
        passes.forward(*addresses(x, y, *winners))
        ctx.kept = passes, winners, shape_of(x), type_of(x)
        return y

    @staticmethod
    @first_order
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        passes, winners, shape, dtype = ctx.kept
        dy, dx = dy.contiguous(), empty(shape, dtype)
        passes.backward(*addresses(dy, dx, *winners))
        return dx
