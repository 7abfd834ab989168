"""The operations of the networks by oneDNN: CPU, channels last, float32 or bfloat16.

Paddle's own CPU convolutions unfold the images and multiply matrices sample by sample. oneDNN,
which Paddle ships but uses in static graphs only, is several times faster. Here it is called from
dynamic graphs, one differentiable operation at a time.

Between `enter` and `mean`, activations are tensors ``[N, H, W, C]``. Parameters stay where they are
and as they are, ``[O, I, H, W]`` in float32: checkpoints, optimizers and `paddle.Model` see nothing
of the engine.

A pixel may have room in memory for more channels than it shows: oneDNN's fast batch norms take
channels by sixteen, the others are very slow, and what `concat` makes has room for that.
Such a tensor is a view of a wider one. The room holds zeros, or in gradients anything. Paddle's
``contiguous`` takes the room away from a tensor itself, wherever it is held: what was kept for the
backward pass gets it back by `_with_room`.
"""

from __future__ import annotations

from ctypes import c_float, c_uint
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import paddle
from paddle import Tensor, nn
from paddle.autograd import PyLayer

from resnet_fit.engines import library as dnnl
from resnet_fit.engines.cache import Cache
from resnet_fit.engines.library import Buffer, Description, Primitive

Shape = tuple[int, int, int, int]

_cache = Cache()
_TYPES = {"float32": dnnl.FLOAT32, "bfloat16": dnnl.BFLOAT16}


class OneDNN:
    """What `resnet_fit.engines.framework` does, by oneDNN.

    Args:
        dtype: of the activations, ``float32`` or ``bfloat16``. Parameters, their gradients and all
            statistics are float32 in both.
    """

    def __init__(self, dtype: str = "float32") -> None:
        self.dtype = dtype

    def enter(self, images: Tensor) -> Tensor:
        _cache.begin(self, *images.shape[:1], *images.shape[2:])  # the channels never change
        return _Enter.apply(images, self.dtype)

    def convolve(self, layer: nn.Conv2D, x: Tensor) -> Tensor:
        if x.shape[3] != layer.weight.shape[1]:  # never to be taken for room in memory
            channels = layer.weight.shape[1]
            raise ValueError(f"a convolution of {channels} channels received {x.shape[3]}")
        padding = layer._padding if isinstance(layer._padding, int) else layer._padding[0]
        return _Convolve.apply(x, layer.weight, layer._stride[0], padding)

    def normalize(self, layer: nn.BatchNorm2D, x: Tensor, relu: bool = False) -> Tensor:
        running = layer._mean, layer._variance
        room = _fast_room(x.shape[3])
        if not layer.training or layer._use_global_stats:
            mean, variance = (_fill_up(statistic, room) for statistic in running)
            plan = _NormPlan(mean, variance, layer._epsilon, relu, False, paddle.is_grad_enabled())
            return _Normalize.apply(x, layer.weight, layer.bias, plan)
        batch = paddle.empty([room], "float32"), paddle.empty([room], "float32")
        plan = _NormPlan(*batch, layer._epsilon, relu, True, True)
        y = _Normalize.apply(x, layer.weight, layer.bias, plan)
        with paddle.no_grad():
            for average, now in zip(running, batch, strict=True):
                now = now[: average.shape[0]]
                mixed = average * layer._momentum + now * (1 - layer._momentum)
                paddle.assign(mixed, average)
        return y

    def add(self, x: Tensor, shortcut: Tensor) -> Tensor:
        return _AddRelu.apply(x, shortcut)

    def fork(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return (x, x) if x.stop_gradient else _Fork.apply(x)

    def max_pool(self, x: Tensor) -> Tensor:
        return _Pool.apply(x, dnnl.POOLING_MAX, 3, 1)

    def average_pool(self, x: Tensor) -> Tensor:
        return _Pool.apply(x, dnnl.POOLING_AVERAGE, 2, 0)

    def concat(self, x: Tensor, new: Tensor) -> Tensor:
        return _Concat.apply(x, new)

    def zero_pad(self, x: Tensor, new_channels: int, stride: int) -> Tensor:
        return _ZeroPad.apply(x[:, ::stride, ::stride] if stride > 1 else x, new_channels)

    def mean(self, x: Tensor) -> Tensor:
        return x.astype("float32").mean(axis=[1, 2])


def _shape(x: Tensor) -> Shape:
    """``(N, C, H, W)`` of a tensor ``[N, H, W, C]``."""
    n, h, w, c = x.shape
    return n, c, h, w


def _in_memory(x: Tensor) -> Shape:
    """The same, with all the channels that a pixel has room for."""
    n, h, w, _ = x.shape
    return n, x.strides[2], h, w


def _type(x: Tensor) -> str:
    return "bfloat16" if x.dtype == paddle.bfloat16 else "float32"


def _fast_room(channels: int) -> int:
    """The room that these channels need for a fast batch norm."""
    return -(-channels // 16) * 16


def _empty(shape: Shape, dtype: str, room: int | None = None) -> Tensor:
    n, c, h, w = shape
    wide = paddle.empty([n, h, w, room or c], dtype)
    return wide[..., :c] if room and room > c else wide


def _empty_like(x: Tensor) -> Tensor:
    """Images of the same shape, with as much room."""
    return _empty(_shape(x), _type(x), _in_memory(x)[1])


def _with_room(x: Tensor, room: int) -> Tensor:
    """The same images, with room for so many channels a pixel."""
    _, h, w, c = x.shape
    if list(x.strides) == [h * w * room, w * room, room, 1]:
        return x
    x = x.contiguous()
    return x if room == c else _concatenated([x], room)


def _fill_up(parameter: Tensor, room: int) -> Tensor:
    """A vector ``[C]`` or weights ``[O, C, H, W]`` with zeros for the rest of the room."""
    axis = 1 if parameter.ndim == 4 else 0
    shape = list(parameter.shape)
    if shape[axis] == room:
        return parameter
    shape[axis] = room - shape[axis]
    return paddle.concat([parameter, paddle.zeros(shape, "float32")], axis)


_packed_weights = Buffer()
# oneDNN's first choice of a batch norm lets threads spin at barriers until all are there. Where a
# core has other work to do as well, each barrier lasts until the system lets that thread go on,
# and a small network spends most of its step so. This one ends and begins threads' work instead.
_NO_BARRIER = "bnorm_tbb_jit"


@_cache.once
class _Convolution:
    """The three passes of a convolution of one geometry, each compiled when first needed.

    Each pass wants the weights in a layout of its own: they are packed, or unpacked, on its way.
    """

    def __init__(self, x: Shape, w: Shape, stride: int, padding: int, dtype: str) -> None:
        n, _, height, width = x
        rows, columns = ((side + 2 * padding - w[2]) // stride + 1 for side in (height, width))
        self.out: Shape = (n, w[0], rows, columns)
        kind = _TYPES[dtype]
        self._x, self._y = dnnl.channels_last(x, kind), dnnl.channels_last(self.out, kind)
        self._w, self._any_w = dnnl.contiguous(w), dnnl.layout(w, kind)
        self._any_dw = dnnl.layout(w, dnnl.FLOAT32)
        around = dnnl.dims(padding, padding)
        self._geometry = (dnnl.dims(stride, stride), dnnl.dims(0, 0), around, around)
        self._description = Description(
            "convolution_forward",
            dnnl.FORWARD_TRAINING,
            dnnl.CONVOLUTION_DIRECT,
            *(self._x, self._any_w, None, self._y),
            *self._geometry,
            dnnl.PLAIN,
        )

    def forward(self, x: Tensor, weight: Tensor, y: Tensor) -> None:
        pack, run, size = self._forward
        with dnnl.LOCK:
            packed = _packed_weights.at_least(size)
            pack(weight.data_ptr(), packed)
            run(x.data_ptr(), packed, y.data_ptr())

    def backward_data(self, dy: Tensor, weight: Tensor, dx: Tensor) -> None:
        pack, run, size = self._backward_data
        with dnnl.LOCK:
            packed = _packed_weights.at_least(size)
            pack(weight.data_ptr(), packed)
            run(dy.data_ptr(), packed, dx.data_ptr())

    def backward_weights(self, x: Tensor, dy: Tensor, dw: Tensor) -> None:
        run, unpack, size = self._backward_weights
        with dnnl.LOCK:
            packed = _packed_weights.at_least(size)
            run(x.data_ptr(), dy.data_ptr(), packed)
            unpack(packed, dw.data_ptr())

    @cached_property
    def _forward(self) -> tuple[Primitive, Primitive, int]:
        packed = self._description.layout(dnnl.QUERY_WEIGHTS)
        roles = [(dnnl.SOURCE, self._x), (dnnl.WEIGHTS, packed), (dnnl.DESTINATION, self._y)]
        run = Primitive(self._description, roles)
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
            *(self._x, self._any_dw, None, self._y),
            *self._geometry,
            self._description.handle,
            dnnl.PLAIN,
        )
        packed = description.layout(dnnl.QUERY_DIFF_WEIGHTS)
        run = Primitive(
            description,
            [
                (dnnl.SOURCE, self._x),
                (dnnl.DIFF_DESTINATION, self._y),
                (dnnl.DIFF_WEIGHTS, packed),
            ],
        )
        return run, dnnl.reorder(packed, self._w), dnnl.size(packed)


class _Convolve(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        ctx.wanted = not x.stop_gradient, not weight.stop_gradient
        images = _in_memory(x)
        ctx.channels, ctx.room = weight.shape[1], images[1]
        weight = _fill_up(weight, ctx.room)
        ctx.passes = _Convolution(images, tuple(weight.shape), stride, padding, _type(x))
        ctx.save_for_backward(x, weight)
        y = _empty(ctx.passes.out, _type(x))
        ctx.passes.forward(x, weight, y)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        dy = dy.contiguous()
        x, weight = ctx.saved_tensor()
        x = _with_room(x, ctx.room)
        dx = dw = None
        if ctx.wanted[1]:
            dw = paddle.empty(weight.shape, "float32")
            ctx.passes.backward_weights(x, dy, dw)
            dw = dw[:, : ctx.channels].contiguous()
        if ctx.wanted[0]:
            dx = _empty_like(x)
            ctx.passes.backward_data(dy, weight, dx)
        return dx, dw


@_cache.once
class _Normalization:
    """Batch norm of one shape, by the batch's statistics or by given ones."""

    def __init__(
        self, x: Shape, dtype: str, epsilon: float, relu: bool, batch: bool, differentiable: bool
    ) -> None:
        images, channels = dnnl.channels_last(x, _TYPES[dtype]), dnnl.contiguous((x[1],))
        flags = dnnl.USE_SCALE | dnnl.USE_SHIFT
        flags |= dnnl.FUSE_RELU if relu else 0
        flags |= 0 if batch else dnnl.USE_GLOBAL_STATISTICS
        settings = c_float(epsilon), c_uint(flags)
        description = Description(
            "batch_normalization_forward",
            dnnl.FORWARD_TRAINING if differentiable else dnnl.FORWARD_INFERENCE,
            *(images, images),
            *settings,
            dnnl.PLAIN,
            prefer=_NO_BARRIER if batch else "",
        )
        # Which outputs the ReLU let pass, a bit each.
        workspace = description.layout(dnnl.QUERY_WORKSPACE)
        self.workspace_size = dnnl.size(workspace) if relu and differentiable else 0
        extra = [(dnnl.WORKSPACE, workspace)] if self.workspace_size else []
        statistics = [(dnnl.MEAN, channels), (dnnl.VARIANCE, channels)]
        self.forward = Primitive(
            description,
            [
                (dnnl.SOURCE, images),
                (dnnl.SCALE, channels),
                (dnnl.SHIFT, channels),
                *statistics,
                (dnnl.DESTINATION, images),
                *extra,
            ],
        )
        if not differentiable:
            return
        backward = Description(
            "batch_normalization_backward",
            dnnl.BACKWARD,
            *(images, images, images),
            *settings,
            description.handle,
            dnnl.PLAIN,
        )
        self.backward = Primitive(
            backward,
            [
                (dnnl.SOURCE, images),
                (dnnl.SCALE, channels),
                *statistics,
                (dnnl.DIFF_DESTINATION, images),
                (dnnl.DIFF_SOURCE, images),
                (dnnl.DIFF_SCALE, channels),
                (dnnl.DIFF_SHIFT, channels),
                *extra,
            ],
        )


@dataclass
class _NormPlan:
    """What a batch norm needs beside its differentiable inputs; fills in batch statistics."""

    mean: Tensor
    variance: Tensor
    epsilon: float
    relu: bool
    batch: bool
    differentiable: bool


class _Normalize(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor, plan: _NormPlan) -> Tensor:
        ctx.wanted = [not t.stop_gradient for t in (x, scale, shift)]
        x = _with_room(x, _fast_room(x.shape[3]))
        images = _in_memory(x)
        passes = _Normalization(
            images, _type(x), plan.epsilon, plan.relu, plan.batch, plan.differentiable
        )
        y = _empty_like(x)
        size = passes.workspace_size
        workspace = [paddle.empty([size], "uint8")] if size else []
        scale, shift = (_fill_up(parameter, images[1]) for parameter in (scale, shift))
        inputs = (x, scale, shift, plan.mean, plan.variance, y, *workspace)
        passes.forward(*(t.data_ptr() for t in inputs))
        if plan.differentiable:
            ctx.save_for_backward(x, scale)
            ctx.rest = passes, plan, workspace
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, scale = ctx.saved_tensor()
        passes, plan, workspace = ctx.rest
        channels, room = x.shape[3], scale.shape[0]
        x, dy = _with_room(x, room), _with_room(dy, room)
        dx, dscale, dshift = _empty_like(x), paddle.empty_like(scale), paddle.empty_like(scale)
        tensors = (x, scale, plan.mean, plan.variance, dy, dx, dscale, dshift, *workspace)
        passes.backward(*(t.data_ptr() for t in tensors))
        gradients = dx, dscale[:channels], dshift[:channels]
        return tuple(g if w else None for g, w in zip(gradients, ctx.wanted, strict=True))


@_cache.once
def _sum(shape: Shape, dtype: str, relu: bool) -> Primitive:
    images = dnnl.channels_last(shape, _TYPES[dtype])
    after = dnnl.THEN_RELU if relu else dnnl.PLAIN
    description = Description("binary", dnnl.BINARY_ADD, images, images, images, after)
    roles = (dnnl.SOURCE, dnnl.SECOND_SOURCE, dnnl.DESTINATION)
    return Primitive(description, [(role, images) for role in roles])


@_cache.once
def _relu_backward(shape: Shape, dtype: str) -> Primitive:
    images = dnnl.channels_last(shape, _TYPES[dtype])
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


class _AddRelu(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: Tensor, shortcut: Tensor) -> Tensor:
        ctx.wanted = not x.stop_gradient, not shortcut.stop_gradient
        images = _in_memory(x)
        shortcut, y = _with_room(shortcut, images[1]), _empty_like(x)
        _sum(images, _type(x), True)(x.data_ptr(), shortcut.data_ptr(), y.data_ptr())
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (y,) = ctx.saved_tensor()
        images = _in_memory(y)
        dy, dx = _with_room(dy, images[1]), _empty_like(y)
        _relu_backward(images, _type(y))(y.data_ptr(), dy.data_ptr(), dx.data_ptr())
        return dx if ctx.wanted[0] else None, dx if ctx.wanted[1] else None


class _Fork(PyLayer):
    """Adds the gradients of its two uses, which Paddle would do with one thread."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        shape, ctx.room = list(x.shape), _in_memory(x)[1]
        return x.view(shape), x.view(shape)

    @staticmethod
    def backward(ctx: Any, da: Tensor, db: Tensor) -> Tensor:
        da, db = _with_room(da, ctx.room), _with_room(db, ctx.room)
        dx = _empty_like(da)
        _sum(_in_memory(dx), _type(dx), False)(da.data_ptr(), db.data_ptr(), dx.data_ptr())
        return dx


@_cache.once
class _Pooling:
    """A pool of stride 2."""

    def __init__(self, x: Shape, dtype: str, algorithm: int, kernel: int, padding: int) -> None:
        n, c, h, w = x
        rows, columns = ((side + 2 * padding - kernel) // 2 + 1 for side in (h, w))
        self.out: Shape = (n, c, rows, columns)
        images = dnnl.channels_last(x, _TYPES[dtype])
        pooled = dnnl.channels_last(self.out, _TYPES[dtype])
        around = dnnl.dims(padding, padding)
        geometry = (dnnl.dims(2, 2), dnnl.dims(kernel, kernel), dnnl.dims(0, 0), around, around)
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


class _Pool(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: Tensor, algorithm: int, kernel: int, padding: int) -> Tensor:
        x = x.contiguous()
        passes = _Pooling(_shape(x), _type(x), algorithm, kernel, padding)
        y = _empty(passes.out, _type(x))
        size = passes.workspace_size
        winners = [paddle.empty([size], "uint8")] if size else []
        passes.forward(*(t.data_ptr() for t in (x, y, *winners)))
        ctx.rest = passes, winners, _shape(x), _type(x)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        passes, winners, shape, dtype = ctx.rest
        dy, dx = dy.contiguous(), _empty(shape, dtype)
        passes.backward(*(t.data_ptr() for t in (dy, dx, *winners)))
        return dx


@_cache.once
def _entering(shape: Shape, dtype: str) -> tuple[Primitive, Primitive]:
    """To channels last and the engine's type, and back."""
    outside, inside = dnnl.contiguous(shape), dnnl.channels_last(shape, _TYPES[dtype])
    return dnnl.reorder(outside, inside), dnnl.reorder(inside, outside)


class _Enter(PyLayer):
    @staticmethod
    def forward(ctx: Any, images: Tensor, dtype: str) -> Tensor:
        ctx.wanted = not images.stop_gradient  # of the argument: a converted copy has no gradient
        images = images.astype("float32").contiguous()
        ctx.shape, ctx.dtype = tuple(images.shape), dtype
        x = _empty(ctx.shape, dtype)
        _entering(ctx.shape, dtype)[0](images.data_ptr(), x.data_ptr())
        return x

    @staticmethod
    def backward(ctx: Any, dx: Tensor) -> Tensor | None:
        if not ctx.wanted:
            return None
        dx, gradient = dx.contiguous(), paddle.empty(list(ctx.shape), "float32")
        _entering(ctx.shape, ctx.dtype)[1](dx.data_ptr(), gradient.data_ptr())
        return gradient


@_cache.once
def _copying(shape: Shape, room: int, wide: int, dtype: str) -> tuple[Primitive, Primitive]:
    """Copies between images and so many channels of wider ones, there and back."""
    narrow = dnnl.channels_last(shape, _TYPES[dtype], room)
    part = dnnl.channels_last(shape, _TYPES[dtype], wide)
    return dnnl.reorder(narrow, part), dnnl.reorder(part, narrow)


def _concatenated(parts: list[Tensor], room: int) -> Tensor:
    """All channels of ``parts``, with zeros in the rest of the room."""
    n, _, h, w = _shape(parts[0])
    dtype = _type(parts[0])
    channels = sum(part.shape[3] for part in parts)
    if room > channels:
        parts = [*parts, paddle.zeros([n, h, w, room - channels], dtype)]
    y = _empty((n, channels, h, w), dtype, room)
    address = y.data_ptr()
    for part in parts:
        copy, _ = _copying(_shape(part), _in_memory(part)[1], room, dtype)
        copy(part.data_ptr(), address)
        address += part.shape[3] * part.element_size()
    return y


class _Concat(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: Tensor, new: Tensor) -> Tensor:
        ctx.wanted = not x.stop_gradient, not new.stop_gradient
        ctx.parts = [(_shape(part), _in_memory(part)[1]) for part in (x, new)]
        ctx.room = _fast_room(x.shape[3] + new.shape[3])
        return _concatenated([x, new], ctx.room)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        dy, dtype = _with_room(dy, ctx.room), _type(dy)
        address = dy.data_ptr()
        gradients = []
        for (shape, room), wanted in zip(ctx.parts, ctx.wanted, strict=True):
            gradient = _empty(shape, dtype, room) if wanted else None
            if gradient is not None:
                _, copy_back = _copying(shape, room, ctx.room, dtype)
                copy_back(address, gradient.data_ptr())
            gradients.append(gradient)
            address += shape[1] * dy.element_size()
        return tuple(gradients)


class _ZeroPad(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: Tensor, new_channels: int) -> Tensor:
        x = x.contiguous()
        n, c, h, w = ctx.shape = _shape(x)
        ctx.wide, ctx.dtype = c + new_channels, _type(x)
        y = paddle.zeros([n, h, w, ctx.wide], ctx.dtype)
        _copying(ctx.shape, c, ctx.wide, ctx.dtype)[0](x.data_ptr(), y.data_ptr())
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        dy, dx = dy.contiguous(), _empty(ctx.shape, ctx.dtype)
        _, copy_back = _copying(ctx.shape, ctx.shape[1], ctx.wide, ctx.dtype)
        copy_back(dy.data_ptr(), dx.data_ptr())
        return dx
