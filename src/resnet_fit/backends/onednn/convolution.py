"""Convolutions."""

from __future__ import annotations

from ctypes import c_void_p
from functools import cached_property
from typing import Any

import paddle
from paddle import Tensor
from paddle.autograd import PyLayer

from resnet_fit.backends.onednn import dnnl
from resnet_fit.backends.onednn.cache import CACHE
from resnet_fit.backends.onednn.differentiation import Inputs, first_order, only_wanted
from resnet_fit.backends.onednn.dnnl import Buffer, Description, Primitive
from resnet_fit.backends.onednn.memory import (
    TYPES,
    Pair,
    Shape,
    addresses,
    allocate,
    channels_last,
    empty,
    pad_parameter,
    pad_to,
    shape_in_memory,
    shape_of,
    type_of,
)

_packed_weights = Buffer()


def _stays_in_its_memory(implementation: str) -> bool:
    """Whether this kernel writes only its own memory when computing dw of a strided 1x1 convolution
    with few channels.

    The kernels ``jit_1x1`` and ``jit_bf16_1x1`` write past the memory of their thread where images
    lie channels last and have fewer channels than a vector has numbers, 8 with AVX2 and 16 with
    AVX-512: dw is wrong, or the process ends (https://github.com/uxlfoundation/oneDNN/issues/6035).
    oneDNN offers others always, at least its reference code.
    """
    return "1x1" not in implementation


@CACHE.once
class _Convolution:
    """The three passes of a convolution of one geometry, each compiled when first needed.

    Each pass wants the weights in a layout of its own: they are packed, or unpacked, on its way.
    """

    def __init__(
        self, x: Shape, w: Shape, bias: bool, strides: Pair, paddings: Pair, dtype: str
    ) -> None:
        rows, columns = (
            (side + 2 * padding - kernel) // stride + 1
            for side, kernel, stride, padding in zip(x[2:], w[2:], strides, paddings, strict=True)
        )
        self.out: Shape = (x[0], w[0], rows, columns)
        kind = TYPES[dtype]
        self._x, self._y = dnnl.channels_last(x, kind), dnnl.channels_last(self.out, kind)
        self._w, self._any_w = dnnl.contiguous(w), dnnl.layout(w, kind)
        self._any_dw = dnnl.layout(w, dnnl.FLOAT32)
        self._b = dnnl.contiguous((w[0],)) if bias else None
        around = dnnl.dims(*paddings)
        self._geometry = (dnnl.dims(*strides), dnnl.dims(0, 0), around, around)
        self._strided_1x1_of_few_channels = w[2:] == (1, 1) and max(strides) > 1 and x[1] < 16
        self._description = Description(
            "convolution_forward",
            dnnl.FORWARD_TRAINING,
            dnnl.CONVOLUTION_DIRECT,
            *(self._x, self._any_w, self._b, self._y),
            *self._geometry,
            dnnl.PLAIN,
        )

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None, y: Tensor) -> None:
        pack, run, size = self._forward
        with dnnl.LOCK:
            packed = _packed_weights.at_least(size)
            pack(weight.data_ptr(), packed)
            run(x.data_ptr(), packed, y.data_ptr(), *addresses(bias))

    def backward_data(self, dy: Tensor, weight: Tensor, dx: Tensor) -> None:
        pack, run, size = self._backward_data
        with dnnl.LOCK:
            packed = _packed_weights.at_least(size)
            pack(weight.data_ptr(), packed)
            run(dy.data_ptr(), packed, dx.data_ptr())

    def backward_weights(self, x: Tensor, dy: Tensor, dw: Tensor, db: Tensor | None) -> None:
        run, unpack, size = self._backward_weights
        with dnnl.LOCK:
            packed = _packed_weights.at_least(size)
            run(x.data_ptr(), dy.data_ptr(), packed, *addresses(db))
            unpack(packed, dw.data_ptr())

    @cached_property
    def _forward(self) -> tuple[Primitive, Primitive, int]:
        packed = self._description.layout(dnnl.QUERY_WEIGHTS)
        roles = [(dnnl.SOURCE, self._x), (dnnl.WEIGHTS, packed), (dnnl.DESTINATION, self._y)]
        run = Primitive(self._description, [*roles, *self._with_bias(dnnl.BIAS)])
        return dnnl.reorder(self._w, packed), run, dnnl.size(packed)

    @cached_property
    def _backward_data(self) -> tuple[Primitive, Primitive, int]:
        description = Description(
            "convolution_backward_data",
            dnnl.CONVOLUTION_DIRECT,
            *(self._x, self._any_w, self._y),
            *self._geometry,
            self._description.handle,
            dnnl.PLAIN,
        )
        packed = description.layout(dnnl.QUERY_WEIGHTS)
        run = Primitive(
            description,
            [(dnnl.DIFF_DESTINATION, self._y), (dnnl.WEIGHTS, packed), (dnnl.DIFF_SOURCE, self._x)],
        )
        return dnnl.reorder(self._w, packed), run, dnnl.size(packed)

    @cached_property
    def _backward_weights(self) -> tuple[Primitive, Primitive, int]:
        description = Description(
            "convolution_backward_weights",
            dnnl.CONVOLUTION_DIRECT,
            *(self._x, self._any_dw, self._b, self._y),
            *self._geometry,
            self._description.handle,
            dnnl.PLAIN,
            prefer=_stays_in_its_memory if self._strided_1x1_of_few_channels else None,
        )
        packed = description.layout(dnnl.QUERY_DIFF_WEIGHTS)
        run = Primitive(
            description,
            [
                (dnnl.SOURCE, self._x),
                (dnnl.DIFF_DESTINATION, self._y),
                (dnnl.DIFF_WEIGHTS, packed),
                *self._with_bias(dnnl.DIFF_BIAS),
            ],
        )
        return run, dnnl.reorder(packed, self._w), dnnl.size(packed)

    def _with_bias(self, role: int) -> list[tuple[int, c_void_p]]:
        return [(role, self._b)] if self._b else []


class Convolve(PyLayer):
    @staticmethod
    def forward(ctx: Any, inputs: Inputs, settings: tuple[Pair, Pair], *_: Any) -> Tensor:
        x, weight, bias = inputs.tensors
        x, ctx.padded = channels_last(x)
        ctx.wanted, ctx.channels = inputs.wanted, weight.shape[1]
        weight = pad_parameter(weight, ctx.padded)
        bias = bias if bias is None else bias.contiguous()
        images = shape_in_memory(x, ctx.padded)
        ctx.bias = bias is not None
        ctx.passes = _Convolution(images, tuple(weight.shape), ctx.bias, *settings, type_of(x))
        ctx.save_for_backward(x, weight)
        y = empty(ctx.passes.out, type_of(x))
        ctx.passes.forward(x, weight, bias, y)
        return y

    @staticmethod
    @first_order
    def backward(ctx: Any, dy: Tensor) -> Any:
        dy = dy.contiguous()
        x, weight = ctx.saved_tensor()
        x = pad_to(x, ctx.padded)
        dx = dw = db = None
        if any(ctx.wanted[1:]):
            dw = allocate(weight.shape, paddle.float32)
            db = allocate(weight.shape[:1], paddle.float32) if ctx.bias else None
            ctx.passes.backward_weights(x, dy, dw, db)
            dw = dw[:, : ctx.channels].contiguous()
        if ctx.wanted[0]:
            dx = empty(shape_of(x), type_of(x), ctx.padded)
            ctx.passes.backward_data(dy, weight, dx)
        return only_wanted(ctx.wanted, dx, dw, db)
