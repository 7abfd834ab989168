"""The sum of two branches with a ReLU, and the fork into two, whose gradients are summed."""

from __future__ import annotations

from ctypes import c_float
from typing import Any

from paddle import Tensor
from paddle.autograd import PyLayer

from resnet_fit.backends.onednn import dnnl
from resnet_fit.backends.onednn.cache import CACHE
from resnet_fit.backends.onednn.differentiation import Inputs, first_order, only_wanted
from resnet_fit.backends.onednn.dnnl import Description, Primitive
from resnet_fit.backends.onednn.memory import (
    TYPES,
    Shape,
    addresses,
    channels_last,
    empty,
    pad_to,
    shape_in_memory,
    shape_of,
    type_of,
)


@CACHE.once
def _sum(shape: Shape, dtype: str, relu: bool) -> Primitive:
    images = dnnl.channels_last(shape, TYPES[dtype])
    after = dnnl.THEN_RELU if relu else dnnl.PLAIN
    description = Description("binary", dnnl.BINARY_ADD, images, images, images, after)
    roles = (dnnl.SOURCE, dnnl.SECOND_SOURCE, dnnl.DESTINATION)
    return Primitive(description, [(role, images) for role in roles])


@CACHE.once
def _relu_backward(shape: Shape, dtype: str) -> Primitive:
    images = dnnl.channels_last(shape, TYPES[dtype])
    nothing = c_float(0), c_float(0)
    kind = dnnl.RELU_BY_OUTPUT
    forward = Description(
        "eltwise_forward", dnnl.FORWARD_TRAINING, kind, images, images, *nothing, dnnl.PLAIN
    )
    backward = Description(
        "eltwise_backward", kind, images, images, images, *nothing, forward.handle, dnnl.PLAIN
    )
    roles = (dnnl.DESTINATION, dnnl.DIFF_DESTINATION, dnnl.DIFF_SOURCE)
    return Primitive(backward, [(role, images) for role in roles])


class AddRelu(PyLayer):
    @staticmethod
    def forward(ctx: Any, inputs: Inputs, *_: Any) -> Tensor:
        x, shortcut = inputs.tensors
        x, padded = channels_last(x)
        ctx.wanted, ctx.padded = inputs.wanted, padded
        shortcut = pad_to(shortcut, padded)
        y = empty(shape_of(x), type_of(x), padded)
        _sum(shape_in_memory(x, padded), type_of(x), True)(*addresses(x, shortcut, y))
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @first_order
    def backward(ctx: Any, dy: Tensor) -> Any:
        (y,) = ctx.saved_tensor()
        y, dy = pad_to(y, ctx.padded), pad_to(dy, ctx.padded)
        dx = empty(shape_of(y), type_of(y), ctx.padded)
        _relu_backward(shape_in_memory(y, ctx.padded), type_of(y))(*addresses(y, dy, dx))
        return only_wanted(ctx.wanted, dx, dx)


class Fork(PyLayer):
    """Adds the gradients of its two uses, which Paddle would do with one thread."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        x, ctx.padded = channels_last(x)
        shape = list(x.shape)
        return x.view(shape), x.view(shape)

    @staticmethod
    @first_order
    def backward(ctx: Any, da: Tensor, db: Tensor) -> Tensor:
        da, db = pad_to(da, ctx.padded), pad_to(db, ctx.padded)
        dx = empty(shape_of(da), type_of(da), ctx.padded)
        _sum(shape_in_memory(dx, ctx.padded), type_of(dx), False)(*addresses(da, db, dx))
        return dx
