"""Compute backends: Paddle's operations in either layout, or oneDNN on a CPU.

A network calls its operations through an attribute, ``backend``, so that one definition of a block
serves all. They are those of `resnet_fit.backends.plain` until `use_backend` chooses others.
"""

from __future__ import annotations

from typing import Any

import paddle
from paddle import nn

from resnet_fit.backends.backend import Backend
from resnet_fit.backends.compiled import check_cinn, compile_forward
from resnet_fit.backends.forward import replace_forward
from resnet_fit.backends.threads import set_threads, threads
from resnet_fit.errors import UserError, check_choice
from resnet_fit.machine import has_bfloat16

BACKENDS = ("paddle", "channels_last", "onednn")

__all__ = [
    "check_cinn",
    "choose_backend",
    "compile_forward",
    "onednn_problem",
    "replace_forward",
    "set_threads",
    "threads",
    "use_backend",
]


def use_backend(network: nn.Layer, backend: str, dtype: str = "float32") -> None:
    """Let a network of this library compute by another backend from now on.

    Weights, checkpoints and results stay as they are, up to rounding. A layer that a backend does
    not cover, of another class or with hooks, is called with images ``[N, C, H, W]``, as it is in
    Paddle; so is a layer of the network that is called by hand.

    Args:
        backend: ``paddle`` (Paddle's own operations), ``channels_last`` (the same on another
            layout, for GPUs in half precision) or ``onednn`` (CPU only).
        dtype: of the activations by ``onednn``: ``float32``, or ``bfloat16`` on a processor with
            AVX512-BF16 or AMX.

    Raises:
        UserError: there is no such backend, it cannot be used here, or the network has no layer of
            this library; the message says why.
    """
    check_choice("backend", backend, BACKENDS)
    check_choice("dtype", dtype, ("float32", "bfloat16"))
    if backend == "onednn":
        problem = onednn_problem()
        if problem:
            raise UserError(f"the onednn backend cannot be used: {problem}")
        if dtype == "bfloat16" and not has_bfloat16():
            raise UserError(f"dtype={dtype!r}: this processor has no bfloat16; use float32")
        _require_cpu(network)
    ours = _backend_layers(network)
    if not ours and backend != "paddle":
        raise UserError(
            f"backend={backend!r}: {type(network).__name__} has no layer of this library"
        )
    chosen = Backend(backend, dtype)
    for layer in ours:
        layer.backend = chosen


def _require_cpu(network: nn.Layer) -> None:
    """oneDNN gets the addresses of tensors, which must be of the host's memory."""
    if not paddle.in_dynamic_mode():
        return
    device = paddle.get_device()
    if device != "cpu" or not all(p.place.is_cpu_place() for p in network.parameters()):
        raise UserError(
            f"the onednn backend computes on a CPU, and the device is {device}: call "
            "paddle.set_device('cpu') before the network is made"
        )


def choose_backend(
    name: str,
    device: str,
    compiled: bool = False,
    network: nn.Layer | None = None,
    precision: str = "float32",
) -> str:
    """``auto`` resolved for a device (``cpu`` or ``gpu:N``), a static graph, and a network.

    Half precision on a GPU takes ``channels_last``, as NVIDIA's ResNet-50 in Paddle does: its
    tensor cores multiply in this layout.

    Raises:
        UserError: there is no such backend, or it does not work there.
    """
    check_choice("backend", name, ("auto", *BACKENDS))
    if name == "auto":
        if network is not None and not _backend_layers(network):
            return "paddle"
        if device != "cpu":
            return "paddle" if precision == "float32" else "channels_last"
        return "paddle" if compiled or onednn_problem() else "onednn"
    if name == "onednn" and device != "cpu":
        raise UserError(f"training.backend: onednn works on a CPU only, and the device is {device}")
    if name == "onednn" and onednn_problem():
        raise UserError(f"training.backend: received onednn, but {onednn_problem()}; use auto")
    return name


def _backend_layers(network: nn.Layer) -> list[Any]:
    """The layers of a network that compute by a backend."""
    layers = network.sublayers(include_self=True)
    return [layer for layer in layers if isinstance(getattr(layer, "backend", None), Backend)]


def onednn_problem() -> str | None:
    """Why the onednn backend cannot be used here, or None where it can."""
    try:
        import resnet_fit.backends.onednn.dnnl  # noqa: F401 - loads the library
    except ImportError as error:
        return str(error)
    if not paddle.get_flags("FLAGS_use_stride_kernel")["FLAGS_use_stride_kernel"]:
        return "FLAGS_use_stride_kernel is off, so that Paddle copies what it views"
    return None
