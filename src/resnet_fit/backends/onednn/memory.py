"""How activations lie in memory: channels last, and padded where oneDNN wants that.

The channels of a pixel may be padded to a multiple of 16: oneDNN's fast batch norms need
that, the others are very slow. A padded tensor is a view of a wider one: its pixels lie further
apart than it has channels. The padding holds zeros, or in gradients anything. Paddle's
``contiguous`` changes a tensor in place, wherever it is held, into one without padding: what was
kept for the backward pass is padded again by `pad_to`.
"""

from __future__ import annotations

from typing import Any

import paddle
import paddle.nn.functional as F
from paddle import Tensor, _C_ops

from resnet_fit.backends import covered
from resnet_fit.backends.onednn import dnnl
from resnet_fit.backends.onednn.cache import CACHE
from resnet_fit.backends.onednn.dnnl import Primitive

Shape = tuple[int, int, int, int]
# Rows and columns.
Pair = tuple[int, int]

TYPES = {"float32": dnnl.FLOAT32, "bfloat16": dnnl.BFLOAT16}
_CPU = paddle.CPUPlace()


def shape_of(x: Tensor) -> Shape:
    """``(N, C, H, W)`` of a tensor ``[N, H, W, C]``."""
    n, h, w, c = x.shape
    return n, c, h, w


def type_of(x: Tensor) -> str:
    return "float32" if x.dtype in covered.FLOAT32 else "bfloat16"


def padded_channels(channels: int) -> int:
    """The next multiple of 16."""
    return -(-channels // 16) * 16


def channels_taken(x: Tensor) -> int:
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
    return channels if channels == padded_channels(c) and starts_pixel else 0


def channels_last(x: Tensor) -> tuple[Tensor, int]:
    """The same images where they lie channels last, and how many channels a pixel takes."""
    channels = channels_taken(x)
    return (x, channels) if channels else (x.contiguous(), x.shape[3])


def pad_to(x: Tensor, padded: int) -> Tensor:
    """The same images, with so many channels a pixel in memory."""
    if channels_taken(x) == padded:
        return x
    x = x.contiguous()
    return x if padded == x.shape[3] else concatenate([x], padded)


def allocate(shape: list[int], dtype: Any) -> Tensor:
    """A tensor of any content. `paddle.empty` takes four times as long, and a step makes many."""
    return _C_ops.empty(shape, dtype, _CPU)


def empty(shape: Shape, dtype: str, padded: int | None = None) -> Tensor:
    n, c, h, w = shape
    wide = allocate([n, h, w, padded or c], getattr(paddle, dtype))
    return wide[..., :c] if padded and padded > c else wide


def shape_in_memory(x: Tensor, channels: int) -> Shape:
    """``(N, C, H, W)`` with all the channels that a pixel takes in memory."""
    n, h, w, _ = x.shape
    return n, channels, h, w


def pad_parameter(parameter: Tensor, padded: int) -> Tensor:
    """A vector ``[C]`` or weights ``[O, C, H, W]`` with zeros for the padded channels."""
    parameter = parameter.contiguous()
    axis = 1 if parameter.ndim == 4 else 0
    shape = list(parameter.shape)
    if shape[axis] == padded:
        return parameter
    around = [0] * (2 * len(shape))
    around[2 * axis + 1] = padded - shape[axis]
    return F.pad(parameter, around)


@CACHE.once
def copying(shape: Shape, padded: int, wide: int, dtype: str) -> tuple[Primitive, Primitive]:
    """Copies between images and so many channels of wider ones, there and back."""
    narrow = dnnl.channels_last(shape, TYPES[dtype], padded)
    part = dnnl.channels_last(shape, TYPES[dtype], wide)
    return dnnl.reorder(narrow, part), dnnl.reorder(part, narrow)


def concatenate(parts: list[Tensor], padded: int) -> Tensor:
    """All channels of ``parts``, padded with zeros."""
    n, _, h, w = shape_of(parts[0])
    dtype = type_of(parts[0])
    channels = sum(part.shape[3] for part in parts)
    if padded > channels:
        parts = [*parts, paddle.zeros([n, h, w, padded - channels], dtype)]
    y = empty((n, channels, h, w), dtype, padded)
    address = y.data_ptr()
    for part in parts:
        part, in_memory = channels_last(part)
        copy, _ = copying(shape_of(part), in_memory, padded, dtype)
        copy(part.data_ptr(), address)
        address += part.shape[3] * part.element_size()
    return y


def addresses(*tensors: Tensor | None) -> list[int]:
    return [tensor.data_ptr() for tensor in tensors if tensor is not None]
