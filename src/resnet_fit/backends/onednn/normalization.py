"""Batch norms, alone or with a ReLU."""

from __future__ import annotations

from ctypes import c_float, c_uint
from dataclasses import dataclass
from typing import Any

import paddle
from paddle import Tensor, nn
from paddle.autograd import PyLayer

from resnet_fit.backends.onednn import dnnl
from resnet_fit.backends.onednn.cache import CACHE
from resnet_fit.backends.onednn.differentiation import Inputs, apply, first_order, only_wanted
from resnet_fit.backends.onednn.dnnl import Description, Primitive
from resnet_fit.backends.onednn.memory import (
    TYPES,
    Shape,
    addresses,
    allocate,
    empty,
    pad_parameter,
    pad_to,
    padded_channels,
    shape_in_memory,
    shape_of,
    type_of,
)


def normalize(layer: nn.BatchNorm2D, x: Tensor, relu: bool) -> Tensor:
    """What a batch norm computes, with a ReLU or without; in training its statistics move."""
    running = layer._mean, layer._variance
    padded = padded_channels(x.shape[3])
    if not layer.training or layer._use_global_stats:
        mean, variance = (pad_parameter(statistic, padded) for statistic in running)
        plan = _Plan(mean, variance, layer._epsilon, relu, False, paddle.is_grad_enabled())
        return apply(_Normalize, (x, layer.weight, layer.bias), plan)
    batch = allocate([padded], paddle.float32), allocate([padded], paddle.float32)
    plan = _Plan(*batch, layer._epsilon, relu, True, True)
    y = apply(_Normalize, (x, layer.weight, layer.bias), plan)
    with paddle.no_grad():
        for average, now in zip(running, batch, strict=True):
            now = now[: average.shape[0]]
            mixed = average * layer._momentum + now * (1 - layer._momentum)
            paddle.assign(mixed, average)
    return y


def _without_barrier(implementation: str) -> bool:
    """Whether a batch norm ends and begins threads' work, instead of spinning at barriers.

    oneDNN's first choice lets threads spin until all are there. Where a core has other work to do
    as well, each barrier lasts until the system lets that thread go on, and a small network spends
    most of its step so.
    """
    return implementation.startswith("bnorm_tbb_jit")


@CACHE.once
class _Normalization:
    """Batch norm of one shape, by the batch's statistics or by given ones."""

    def __init__(
        self, x: Shape, dtype: str, epsilon: float, relu: bool, batch: bool, differentiable: bool
    ) -> None:
        images, channels = dnnl.channels_last(x, TYPES[dtype]), dnnl.contiguous((x[1],))
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
class _Plan:
    """What a batch norm needs beside its differentiable inputs; fills in batch statistics."""

    mean: Tensor
    variance: Tensor
    epsilon: float
    relu: bool
    batch: bool
    differentiable: bool


class _Normalize(PyLayer):
    @staticmethod
    def forward(ctx: Any, inputs: Inputs, settings: tuple[_Plan], *_: Any) -> Tensor:
        x, scale, shift = inputs.tensors
        (plan,) = settings
        padded = padded_channels(x.shape[3])
        x = pad_to(x, padded)
        kind = plan.epsilon, plan.relu, plan.batch, plan.differentiable
        passes = _Normalization(shape_in_memory(x, padded), type_of(x), *kind)
        y = empty(shape_of(x), type_of(x), padded)
        size = passes.workspace_size
        workspace = [allocate([size], paddle.uint8)] if size else []
        scale, shift = (pad_parameter(parameter, padded) for parameter in (scale, shift))
        passes.forward(*addresses(x, scale, shift, plan.mean, plan.variance, y, *workspace))
        if plan.differentiable:
            ctx.save_for_backward(x, scale)
            ctx.kept = inputs.wanted, passes, plan, workspace
        return y

    @staticmethod
    @first_order
    def backward(ctx: Any, dy: Tensor) -> Any:
        x, scale = ctx.saved_tensor()
        wanted, passes, plan, workspace = ctx.kept
        channels, padded = x.shape[3], scale.shape[0]
        x, dy = pad_to(x, padded), pad_to(dy, padded)
        dx = empty(shape_of(x), type_of(x), padded)
        dscale, dshift = (allocate([padded], paddle.float32) for _ in range(2))
        tensors = (x, scale, plan.mean, plan.variance, dy, dx, dscale, dshift, *workspace)
        passes.backward(*addresses(*tensors))
        return only_wanted(wanted, dx, dscale[:channels], dshift[:channels])
