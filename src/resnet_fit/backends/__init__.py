"""Who computes a network's operations: Paddle itself, in either layout, or oneDNN on a CPU.

A network calls its operations through an attribute, ``engine``, so that one definition of a block
serves all. They are those of `resnet_fit.backends.plain` until `use_backend` says else.
"""

from __future__ import annotations

import paddle
from paddle import nn

from resnet_fit.backends.compiled import check_cinn, compile_forward
from resnet_fit.backends.engine import Engine
from resnet_fit.backends.forward import replace_forward
from resnet_fit.backends.threads import set_threads, threads
from resnet_fit.errors import UserError, check_choice
from resnet_fit.machine import has_bfloat16

BACKENDS = ("framework", "channels_last", "onednn")

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


def use_backend(network: nn.Layer, engine: str, dtype: str = "float32") -> None:
    """Let a network of this library compute by another engine from now on.

    Weights, checkpoints and results stay as they are, up to rounding. A layer that an engine does
    not cover, of another class or with hooks, is called with images ``[N, C, H, W]``, as it is in
    Paddle; so is a part of the network that is called by hand.

    Args:
        engine: ``framework`` (Paddle's own operations), ``channels_last`` (the same on another
            layout, for GPUs in half precision) or ``onednn`` (CPU only).
        dtype: of the activations by ``onednn``: ``float32``, or ``bfloat16`` on a processor with
            AVX512-BF16 or AMX.

    Raises:
        UserError: there is no such engine, it cannot be used here, or the network has no part of
            this library; the message says why.
    """
    check_choice("engine", engine, BACKENDS)
    check_choice("dtype", dtype, ("float32", "bfloat16"))
    if engine == "onednn":
        problem = onednn_problem()
        if problem:
            raise UserError(f"the onednn engine cannot be used: {problem}")
        if dtype == "bfloat16" and not has_bfloat16():
            raise UserError(f"dtype={dtype!r}: this processor has no bfloat16; use float32")
    parts = network.sublayers(include_self=True)
    ours = [part for part in parts if isinstance(getattr(part, "engine", None), Engine)]
    if not ours and engine != "framework":
        raise UserError(f"engine={engine!r}: {type(network).__name__} has no part of this library")
    chosen = Engine(engine, dtype)
    for part in ours:
        part.engine = chosen


def choose_backend(name: str, device: str, compiled: bool = False) -> str:
    """``auto`` resolved for a device (``cpu`` or ``gpu:N``), and for a static graph.

    Raises:
        UserError: there is no such engine, or it does not work there.
    """
    check_choice("engine", name, ("auto", *BACKENDS))
    if name == "auto":
        fits = device == "cpu" and not compiled and not onednn_problem()
        return "onednn" if fits else "framework"
    if name == "onednn" and device != "cpu":
        raise UserError(f"training.backend: onednn works on a CPU only, and the device is {device}")
    if name == "onednn" and onednn_problem():
        raise UserError(f"training.backend: received onednn, but {onednn_problem()}; use auto")
    return name


def onednn_problem() -> str | None:
    """Why the onednn engine cannot be used here, or None where it can."""
    try:
        import resnet_fit.backends.dnnl  # noqa: F401 - loads the library
    except ImportError as error:
        return str(error)
    if not paddle.get_flags("FLAGS_use_stride_kernel")["FLAGS_use_stride_kernel"]:
        return "FLAGS_use_stride_kernel is off, so that Paddle copies what the engine views"
    return None
