"""Operations that only copy: into the backend's layout, concatenation, zero padding."""

from __future__ import annotations

from typing import Any

import paddle
from paddle import Tensor
from paddle.autograd import PyLayer

from resnet_fit.backends.onednn import dnnl
from resnet_fit.backends.onednn.cache import CACHE
from resnet_fit.backends.onednn.differentiation import Inputs, first_order, only_wanted
from resnet_fit.backends.onednn.dnnl import Primitive
from resnet_fit.backends.onednn.memory import (
    TYPES,
    Shape,
    allocate,
    channels_taken,
    concatenate,
    copying,
    empty,
    pad_to,
    padded_channels,
    shape_of,
    type_of,
)


@CACHE.once
def _entering(shape: Shape, dtype: str) -> tuple[Primitive, Primitive]:
    """To channels last and the backend's type, and back."""
    outside, inside = dnnl.contiguous(shape), dnnl.channels_last(shape, TYPES[dtype])
    return dnnl.reorder(outside, inside), dnnl.reorder(inside, outside)


class Enter(PyLayer):
    @staticmethod
    def forward(ctx: Any, images: Tensor, dtype: str) -> Tensor:
        ctx.wanted = not images.stop_gradient  # of the argument: a converted copy has no gradient
        images = images.astype("float32").contiguous()
        ctx.shape, ctx.dtype = tuple(images.shape), dtype
        x = empty(ctx.shape, dtype)
        _entering(ctx.shape, dtype)[0](images.data_ptr(), x.data_ptr())
        return x

    @staticmethod
    @first_order
    def backward(ctx: Any, dx: Tensor) -> Tensor | None:
        if not ctx.wanted:
            return None
        dx, gradient = dx.contiguous(), allocate(list(ctx.shape), paddle.float32)
        _entering(ctx.shape, ctx.dtype)[1](dx.data_ptr(), gradient.data_ptr())
        return gradient


class Concat(PyLayer):
    @staticmethod
    def forward(ctx: Any, inputs: Inputs, *_: Any) -> Tensor:
        x, new = inputs.tensors
        ctx.wanted = inputs.wanted
        ctx.parts = [(shape_of(part), channels_taken(part)) for part in (x, new)]
        ctx.padded = padded_channels(x.shape[3] + new.shape[3])
        return concatenate([x, new], ctx.padded)

    @staticmethod
    @first_order
    def backward(ctx: Any, dy: Tensor) -> Any:
        dy, dtype = pad_to(dy, ctx.padded), type_of(dy)
        address = dy.data_ptr()
        gradients = []
        for (shape, in_memory), wanted in zip(ctx.parts, ctx.wanted, strict=True):
            padded = in_memory or shape[1]
            gradient = empty(shape, dtype, padded) if wanted else None
            if gradient is not None:
                _, copy_back = copying(shape, padded, ctx.padded, dtype)
                copy_back(address, gradient.data_ptr())
            gradients.append(gradient)
            address += shape[1] * dy.element_size()
        return only_wanted(ctx.wanted, *gradients)


class ZeroPad(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: Tensor, new_channels: int) -> Tensor:
        x = x.contiguous()
        n, c, h, w = ctx.shape = shape_of(x)
        ctx.wide, ctx.dtype = c + new_channels, type_of(x)
        y = paddle.zeros([n, h, w, ctx.wide], ctx.dtype)
        copying(ctx.shape, c, ctx.wide, ctx.dtype)[0](x.data_ptr(), y.data_ptr())
        return y

    @staticmethod
    @first_order
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        dy, dx = dy.contiguous(), empty(ctx.shape, ctx.dtype)
        _, copy_back = copying(ctx.shape, ctx.shape[1], ctx.wide, ctx.dtype)
        copy_back(dy.data_ptr(), dx.data_ptr())
        return dx
