"""The operations of the networks by oneDNN: CPU, channels last, float32 or bfloat16.

Paddle's own CPU convolutions unfold the images and multiply matrices sample by sample. oneDNN,
which Paddle ships but uses in static graphs only, is several times faster. Here it is called from
dynamic graphs, one differentiable operation at a time.

Between `enter` and `mean`, activations are tensors ``[N, H, W, C]``. Parameters stay where they are
and as they are, ``[O, I, H, W]`` in float32: checkpoints, optimizers and `paddle.Model` see nothing
of the backend.

In memory, the channels of a pixel may be padded to a multiple of 16: oneDNN's fast batch norms need
that, the others are very slow. A padded tensor is a view of a wider one: its pixels lie further
apart than it has channels. The padding holds zeros, or in gradients anything. Paddle's
``contiguous`` changes a tensor in place, wherever it is held, into one without padding: what was
kept for the backward pass is padded again by `_padded_to`.

Layers that oneDNN's operations do not cover are handed to Paddle: `resnet_fit.backends.covered`.
"""

from __future__ import annotations

from collections.abc import Callable
from ctypes import c_float, c_uint, c_void_p
from dataclasses import dataclass
from functools import cached_property, wraps
from itertools import compress
from typing import Any
from weakref import ref

import paddle
import paddle.nn.functional as F
from paddle import Tensor, _C_ops, nn
from paddle.autograd import PyLayer

from resnet_fit.backends import covered, dnnl
from resnet_fit.backends.cache import Cache
from resnet_fit.backends.dnnl import Buffer, Description, Primitive
from resnet_fit.errors import UserError, require

Shape = tuple[int, int, int, int]
# Rows and columns.
Pair = tuple[int, int]

_cache = Cache()
_TYPES = {"float32": dnnl.FLOAT32, "bfloat16": dnnl.BFLOAT16}
_CPU = paddle.CPUPlace()


class OneDNN:
    """What `resnet_fit.backends.plain` does, by oneDNN.

    Args:
        dtype: of the activations, ``float32`` or ``bfloat16``. Parameters, their gradients and all
            statistics are float32 in both.
    """

    def __init__(self, dtype: str = "float32") -> None:
        self.dtype = dtype

    def enter(self, images: Tensor) -> Tensor:
        require(images.shape[0] > 0, "images", list(images.shape), "one image or more")
        _cache.begin(self, *images.shape[:1], *images.shape[2:])  # the channels never change
        return _Enter.apply(images, self.dtype)

    def leave(self, x: Tensor) -> Tensor:
        """Images ``[N, C, H, W]`` of float32 again."""
        return _refuse_second_backward(x.astype("float32")).transpose([0, 3, 1, 2])

    def call(self, layer: nn.Layer, x: Tensor, relu: bool = False) -> Tensor:
        """Any layer that takes and gives images ``[N, C, H, W]`` of float32."""
        covered.check_float32(layer)
        y = layer(self.leave(x))
        return _Enter.apply(F.relu(y) if relu else y, self.dtype)

    def convolve(self, layer: nn.Layer, x: Tensor) -> Tensor:
        if not covered.onednn_convolves(layer):
            return self.call(layer, x)
        weight, bias = layer.weight, layer.bias
        if x.shape[3] != weight.shape[1]:  # never to be taken for padded channels
            raise ValueError(f"a convolution of {weight.shape[1]} channels received {x.shape[3]}")
        geometry = tuple(layer._stride), tuple(layer._updated_padding)
        return _apply(_Convolve, (x, weight, bias), *geometry)

    def normalize(self, layer: nn.Layer, x: Tensor, relu: bool = False) -> Tensor:
        if not covered.onednn_normalizes(layer, x):
            return self.call(layer, x, relu)
        running = layer._mean, layer._variance
        padded = _padded(x.shape[3])
        if not layer.training or layer._use_global_stats:
            mean, variance = (_pad_parameter(statistic, padded) for statistic in running)
            plan = _NormPlan(mean, variance, layer._epsilon, relu, False, paddle.is_grad_enabled())
            return _apply(_Normalize, (x, layer.weight, layer.bias), plan)
        batch = _memory([padded], paddle.float32), _memory([padded], paddle.float32)
        plan = _NormPlan(*batch, layer._epsilon, relu, True, True)
        y = _apply(_Normalize, (x, layer.weight, layer.bias), plan)
        with paddle.no_grad():
            for average, now in zip(running, batch, strict=True):
                now = now[: average.shape[0]]
                mixed = average * layer._momentum + now * (1 - layer._momentum)
                paddle.assign(mixed, average)
        return y

    def add(self, x: Tensor, shortcut: Tensor) -> Tensor:
        if x.shape != shortcut.shape or x.dtype != shortcut.dtype:
            return F.relu(x + shortcut)
        return _apply(_AddRelu, (x, shortcut))

    def fork(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return (x, x) if x.stop_gradient else _Fork.apply(x)

    def max_pool(self, x: Tensor) -> Tensor:
        return _Pool.apply(x, dnnl.POOLING_MAX, 3, (1, 1), (1, 1))

    def average_pool(self, x: Tensor, ceil: bool = False) -> Tensor:
        # A last window over the edge of an odd side is the mean of the pixels that there are.
        after = tuple(side % 2 if ceil or side == 1 else 0 for side in x.shape[1:3])
        return _Pool.apply(x, dnnl.POOLING_AVERAGE, 2, (0, 0), after)

    def concat(self, x: Tensor, new: Tensor) -> Tensor:
        if x.shape[:3] != new.shape[:3] or x.dtype != new.dtype:
            return paddle.concat([x, new], axis=3)
        return _apply(_Concat, (x, new))

    def zero_pad(self, x: Tensor, new_channels: int, stride: int) -> Tensor:
        return _ZeroPad.apply(x[:, ::stride, ::stride] if stride > 1 else x, new_channels)

    def mean(self, x: Tensor) -> Tensor:
        return _refuse_second_backward(x.astype("float32").mean(axis=[1, 2]))


def _shape(x: Tensor) -> Shape:
    """``(N, C, H, W)`` of a tensor ``[N, H, W, C]``."""
    n, h, w, c = x.shape
    return n, c, h, w


def _type(x: Tensor) -> str:
    return "float32" if x.dtype in covered.FLOAT32 else "bfloat16"


def _padded(channels: int) -> int:
    """The next multiple of 16."""
    return -(-channels // 16) * 16


def _channels_in_memory(x: Tensor) -> int:
    """How many channels a pixel takes in memory, or 0 where ``x`` does not lie channels last.

    Strides of axes of length 1 are not used to reach any element, and Paddle sets them as it likes:
    the first longer axis tells how far apart pixels lie. A single pixel has no padding that
    could be relied on.
    """
    n, h, w, c = x.shape
    of_n, of_h, of_w, of_c = x.strides
    channels = of_w if w > 1 else of_h if h > 1 else of_n if n > 1 else c
    if (
        (c > 1 and of_c != 1)
        or (h > 1 and of_h != w * channels)
        or (n > 1 and of_n != h * w * channels)
    ):
        return 0
    if channels == c:
        return c
    # A slice of channels that starts within a pixel would reach into the next one.
    starts_pixel = x.data_ptr() % (16 * x.element_size()) == 0
    return channels if channels == _padded(c) and starts_pixel else 0


def _channels_last(x: Tensor) -> tuple[Tensor, int]:
    """The same images where they lie channels last, and how many channels a pixel takes."""
    channels = _channels_in_memory(x)
    return (x, channels) if channels else (x.contiguous(), x.shape[3])


def _padded_to(x: Tensor, padded: int) -> Tensor:
    """The same images, with so many channels a pixel in memory."""
    if _channels_in_memory(x) == padded:
        return x
    x = x.contiguous()
    return x if padded == x.shape[3] else _concatenated([x], padded)


def _memory(shape: list[int], dtype: Any) -> Tensor:
    """A tensor of any content. `paddle.empty` takes four times as long, and a step makes many."""
    return _C_ops.empty(shape, dtype, _CPU)


def _empty(shape: Shape, dtype: str, padded: int | None = None) -> Tensor:
    n, c, h, w = shape
    wide = _memory([n, h, w, padded or c], getattr(paddle, dtype))
    return wide[..., :c] if padded and padded > c else wide


def _in_memory(x: Tensor, channels: int) -> Shape:
    """``(N, C, H, W)`` with all the channels that a pixel takes in memory."""
    n, h, w, _ = x.shape
    return n, channels, h, w


def _pad_parameter(parameter: Tensor, padded: int) -> Tensor:
    """A vector ``[C]`` or weights ``[O, C, H, W]`` with zeros for the padded channels."""
    parameter = parameter.contiguous()
    axis = 1 if parameter.ndim == 4 else 0
    shape = list(parameter.shape)
    if shape[axis] == padded:
        return parameter
    around = [0] * (2 * len(shape))
    around[2 * axis + 1] = padded - shape[axis]
    return F.pad(parameter, around)


class _Graph:
    """Lives as long as Paddle keeps the backward pass that holds it."""


class _GraphHolder(PyLayer):
    @staticmethod
    def forward(ctx: Any, x: Tensor, graph: _Graph) -> Tensor:
        ctx.graph = graph
        return x.view(list(x.shape))

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        return dy


def _refuse_second_backward(x: Tensor) -> Tensor:
    """``x``, such that a second backward pass raises an error, where Paddle would crash.

    In a pass of ``backward``, Paddle drops what an operation written in Python has kept, also with
    ``retain_graph=True``.
    """
    if x.stop_gradient or not paddle.is_grad_enabled():
        return x
    graph = _Graph()
    kept, y = ref(graph), _GraphHolder.apply(x, graph)

    def check(_: Tensor) -> None:
        if kept() is None:
            raise UserError(
                "a second backward() through one graph: with the onednn backend Paddle cannot do "
                "that; add the losses, or use paddle.grad with retain_graph=True, or "
                "use_backend(network, 'paddle')"
            )

    y.register_hook(check)
    return y


@dataclass(slots=True)
class _Inputs:
    """The tensors that an operation takes, or None, and which of them want a gradient."""

    tensors: tuple[Any, ...]
    wanted: list[bool]


# Paddle 2.6 hands the gradients of a list to its last tensor alone.
_TAKES_LISTS = not paddle.__version__.startswith("2.")


def _apply(operation: type[PyLayer], tensors: tuple[Tensor | None, ...], *settings: Any) -> Tensor:
    """An operation on several tensors. Paddle sees those that want a gradient, as one list.

    `paddle.grad` computes some gradients only. From an operation on single tensors Paddle then
    demands None for the others, without saying which these are; from a list it takes all.
    """
    wanted = [tensor is not None and not tensor.stop_gradient for tensor in tensors]
    seen = list(compress(tensors, wanted))
    return operation.apply(_Inputs(tensors, wanted), settings, *([seen] if _TAKES_LISTS else seen))


def _only_wanted(wanted: list[bool], *gradients: Tensor | None) -> Any:
    """The wanted ones of all gradients, as Paddle takes them from such an operation."""
    chosen = compress(gradients, wanted)
    return list(chosen) if _TAKES_LISTS else tuple(chosen)


def _first_order(backward: Callable[..., Any]) -> Callable[..., Any]:
    """A backward pass that refuses to be differentiated: Paddle does not see what oneDNN does."""

    @wraps(backward)
    def checked(*arguments: Any) -> Any:
        if paddle.is_grad_enabled():  # only under create_graph=True
            raise UserError(
                "create_graph=True: the onednn backend has no second derivatives; use "
                "use_backend(network, 'paddle')"
            )
        return backward(*arguments)

    return checked


_packed_weights = Buffer()


def _without_barrier(implementation: str) -> bool:
    """Whether a batch norm ends and begins threads' work, instead of spinning at barriers.

    oneDNN's first choice lets threads spin until all are there. Where a core has other work to do
    as well, each barrier lasts until the system lets that thread go on, and a small network spends
    most of its step so.
    """
    return implementation.startswith("bnorm_tbb_jit")


def _stays_in_its_memory(implementation: str) -> bool:
    """Whether a strided 1x1 convolution of few channels does, when it computes dw.

    Those named so write past the memory of their thread where images lie channels last and have
    fewer channels than a vector has numbers, 8 with AVX2 and 16 with AVX-512: dw is wrong, or the
    process ends (https://github.com/uxlfoundation/oneDNN/issues/6035).
    """
    return not implementation.startswith("jit_1x1")


@_cache.once
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
        kind = _TYPES[dtype]
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
            run(x.data_ptr(), packed, y.data_ptr(), *_addresses(bias))

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
            run(x.data_ptr(), dy.data_ptr(), packed, *_addresses(db))
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


def _addresses(*tensors: Tensor | None) -> list[int]:
    return [tensor.data_ptr() for tensor in tensors if tensor is not None]


class _Convolve(PyLayer):
    @staticmethod
    def forward(ctx: Any, inputs: _Inputs, settings: tuple[Pair, Pair], *_: Any) -> Tensor:
        x, weight, bias = inputs.tensors
        x, ctx.padded = _channels_last(x)
        ctx.wanted, ctx.channels = inputs.wanted, weight.shape[1]
        weight = _pad_parameter(weight, ctx.padded)
        bias = bias if bias is None else bias.contiguous()
        images = _in_memory(x, ctx.padded)
        ctx.bias = bias is not None
        ctx.passes = _Convolution(images, tuple(weight.shape), ctx.bias, *settings, _type(x))
        ctx.save_for_backward(x, weight)
        y = _empty(ctx.passes.out, _type(x))
        ctx.passes.forward(x, weight, bias, y)
        return y

    @staticmethod
    @_first_order
    def backward(ctx: Any, dy: Tensor) -> Any:
        dy = dy.contiguous()
        x, weight = ctx.saved_tensor()
        x = _padded_to(x, ctx.padded)
        dx = dw = db = None
        if any(ctx.wanted[1:]):
            dw = _memory(weight.shape, paddle.float32)
            db = _memory(weight.shape[:1], paddle.float32) if ctx.bias else None
            ctx.passes.backward_weights(x, dy, dw, db)
            dw = dw[:, : ctx.channels].contiguous()
        if ctx.wanted[0]:
            dx = _empty(_shape(x), _type(x), ctx.padded)
            ctx.passes.backward_data(dy, weight, dx)
        return _only_wanted(ctx.wanted, dx, dw, db)


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
            prefer=_without_barrier if batch else None,
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
    def forward(ctx: Any, inputs: _Inputs, settings: tuple[_NormPlan], *_: Any) -> Tensor:
        x, scale, shift = inputs.tensors
        (plan,) = settings
        padded = _padded(x.shape[3])
        x = _padded_to(x, padded)
        kind = plan.epsilon, plan.relu, plan.batch, plan.differentiable
        passes = _Normalization(_in_memory(x, padded), _type(x), *kind)
        y = _empty(_shape(x), _type(x), padded)
        size = passes.workspace_size
        workspace = [_memory([size], paddle.uint8)] if size else []
        scale, shift = (_pad_parameter(parameter, padded) for parameter in (scale, shift))
        passes.forward(*_addresses(x, scale, shift, plan.mean, plan.variance, y, *workspace))
        if plan.differentiable:
            ctx.save_for_backward(x, scale)
            ctx.kept = inputs.wanted, passes, plan, workspace
        return y

    @staticmethod
    @_first_order
    def backward(ctx: Any, dy: Tensor) -> Any:
        x, scale = ctx.saved_tensor()
        wanted, passes, plan, workspace = ctx.kept
        channels, padded = x.shape[3], scale.shape[0]
        x, dy = _padded_to(x, padded), _padded_to(dy, padded)
        dx = _empty(_shape(x), _type(x), padded)
        dscale, dshift = (_memory([padded], paddle.float32) for _ in range(2))
        tensors = (x, scale, plan.mean, plan.variance, dy, dx, dscale, dshift, *workspace)
        passes.backward(*_addresses(*tensors))
        return _only_wanted(wanted, dx, dscale[:channels], dshift[:channels])


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
    def forward(ctx: Any, inputs: _Inputs, *_: Any) -> Tensor:
        x, shortcut = inputs.tensors
        x, padded = _channels_last(x)
        ctx.wanted, ctx.padded = inputs.wanted, padded
        shortcut, y = _padded_to(shortcut, padded), _empty(_shape(x), _type(x), padded)
        _sum(_in_memory(x, padded), _type(x), True)(*_addresses(x, shortcut, y))
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @_first_order
    def backward(ctx: Any, dy: Tensor) -> Any:
        (y,) = ctx.saved_tensor()
        y, dy = _padded_to(y, ctx.padded), _padded_to(dy, ctx.padded)
        dx = _empty(_shape(y), _type(y), ctx.padded)
        _relu_backward(_in_memory(y, ctx.padded), _type(y))(*_addresses(y, dy, dx))
        return _only_wanted(ctx.wanted, dx, dx)


class _Fork(PyLayer):
    """Adds the gradients of its two uses, which Paddle would do with one thread."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        x, ctx.padded = _channels_last(x)
        shape = list(x.shape)
        return x.view(shape), x.view(shape)

    @staticmethod
    @_first_order
    def backward(ctx: Any, da: Tensor, db: Tensor) -> Tensor:
        da, db = _padded_to(da, ctx.padded), _padded_to(db, ctx.padded)
        dx = _empty(_shape(da), _type(da), ctx.padded)
        _sum(_in_memory(dx, ctx.padded), _type(dx), False)(*_addresses(da, db, dx))
        return dx


@_cache.once
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
        images = dnnl.channels_last(x, _TYPES[dtype])
        pooled = dnnl.channels_last(self.out, _TYPES[dtype])
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


class _Pool(PyLayer):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, algorithm: int, kernel: int, before: Pair, after: Pair
    ) -> Tensor:
        x = x.contiguous()
        passes = _Pooling(_shape(x), _type(x), algorithm, kernel, before, after)
        y = _empty(passes.out, _type(x))
        size = passes.workspace_size
        winners = [_memory([size], paddle.uint8)] if size else []
        passes.forward(*_addresses(x, y, *winners))
        ctx.kept = passes, winners, _shape(x), _type(x)
        return y

    @staticmethod
    @_first_order
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        passes, winners, shape, dtype = ctx.kept
        dy, dx = dy.contiguous(), _empty(shape, dtype)
        passes.backward(*_addresses(dy, dx, *winners))
        return dx


@_cache.once
def _entering(shape: Shape, dtype: str) -> tuple[Primitive, Primitive]:
    """To channels last and the backend's type, and back."""
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
    @_first_order
    def backward(ctx: Any, dx: Tensor) -> Tensor | None:
        if not ctx.wanted:
            return None
        dx, gradient = dx.contiguous(), _memory(list(ctx.shape), paddle.float32)
        _entering(ctx.shape, ctx.dtype)[1](dx.data_ptr(), gradient.data_ptr())
        return gradient


@_cache.once
def _copying(shape: Shape, padded: int, wide: int, dtype: str) -> tuple[Primitive, Primitive]:
    """Copies between images and so many channels of wider ones, there and back."""
    narrow = dnnl.channels_last(shape, _TYPES[dtype], padded)
    part = dnnl.channels_last(shape, _TYPES[dtype], wide)
    return dnnl.reorder(narrow, part), dnnl.reorder(part, narrow)


def _concatenated(parts: list[Tensor], padded: int) -> Tensor:
    """All channels of ``parts``, padded with zeros."""
    n, _, h, w = _shape(parts[0])
    dtype = _type(parts[0])
    channels = sum(part.shape[3] for part in parts)
    if padded > channels:
        parts = [*parts, paddle.zeros([n, h, w, padded - channels], dtype)]
    y = _empty((n, channels, h, w), dtype, padded)
    address = y.data_ptr()
    for part in parts:
        part, in_memory = _channels_last(part)
        copy, _ = _copying(_shape(part), in_memory, padded, dtype)
        copy(part.data_ptr(), address)
        address += part.shape[3] * part.element_size()
    return y


class _Concat(PyLayer):
    @staticmethod
    def forward(ctx: Any, inputs: _Inputs, *_: Any) -> Tensor:
        x, new = inputs.tensors
        ctx.wanted = inputs.wanted
        ctx.parts = [(_shape(part), _channels_in_memory(part)) for part in (x, new)]
        ctx.padded = _padded(x.shape[3] + new.shape[3])
        return _concatenated([x, new], ctx.padded)

    @staticmethod
    @_first_order
    def backward(ctx: Any, dy: Tensor) -> Any:
        dy, dtype = _padded_to(dy, ctx.padded), _type(dy)
        address = dy.data_ptr()
        gradients = []
        for (shape, in_memory), wanted in zip(ctx.parts, ctx.wanted, strict=True):
            padded = in_memory or shape[1]
            gradient = _empty(shape, dtype, padded) if wanted else None
            if gradient is not None:
                _, copy_back = _copying(shape, padded, ctx.padded, dtype)
                copy_back(address, gradient.data_ptr())
            gradients.append(gradient)
            address += shape[1] * dy.element_size()
        return _only_wanted(ctx.wanted, *gradients)


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
    @_first_order
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        dy, dx = dy.contiguous(), _empty(ctx.shape, ctx.dtype)
        _, copy_back = _copying(ctx.shape, ctx.shape[1], ctx.wide, ctx.dtype)
        copy_back(dy.data_ptr(), dx.data_ptr())
        return dx
