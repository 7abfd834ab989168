"""What must be settled before Paddle starts, and which device a run uses.

Paddle reads its thread count and its math library's switches once, at import.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import platform
import warnings
from typing import Any

from resnet_fit.errors import UserError


def prepare_environment() -> None:
    """Import Paddle with what makes it fast on this machine's CPU. A user's own settings win.

    - ``OMP_NUM_THREADS``: Paddle's default is one thread, and it complains of more.
    - ``MKL_DEBUG_CPU_TYPE=5``: Paddle ships an MKL that falls back to its slowest kernels on
      processors not made by Intel; this version still honours the switch. It changes nothing on
      Intel's own.
    - Memory: large blocks are kept when freed. To give them back to the system and fetch them
      again, page by page, costs a training step more than its arithmetic on some machines.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(usable_cores()))
    os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")
    _keep_freed_memory()
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        import paddle  # noqa: F401


def _keep_freed_memory() -> None:
    """By glibc's ``mallopt``: take large blocks from the heap, and do not shrink the heap."""
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # names of malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return  # another C library: Paddle runs, only slower
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 1 << 30)
    mallopt(top_pad, 1 << 28)


def usable_cores() -> int:
    """Processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def choose_device(name: str) -> str:
    """Make Paddle use a device, and return its name.

    Args:
        name: ``auto`` (a GPU where there is one), ``cpu``, ``gpu`` or ``gpu:N``.

    Raises:
        UserError: if this machine or this build of Paddle has no such device.
    """
    import paddle

    gpus = paddle.device.cuda.device_count() if paddle.is_compiled_with_cuda() else 0
    if name == "auto":
        name = "gpu" if gpus else "cpu"
    if name.startswith("gpu"):
        if not paddle.is_compiled_with_cuda():
            raise UserError(
                f"training.device: received {name}, but the installed Paddle is the CPU build; "
                "install resnet-fit[gpu], or use cpu"
            )
        index = int(name.partition(":")[2] or 0)
        if index >= gpus:
            raise UserError(f"training.device: received {name}, but Paddle finds {gpus} GPUs here")
        name = f"gpu:{index}"
    paddle.set_device(name)
    return name


def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 numbers itself (AVX512-BF16 or AMX)."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            flags = next(line for line in lines if line.startswith("flags")).split()
    except (OSError, StopIteration):
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def describe(device: str, engine: str) -> dict[str, Any]:
    """Versions and hardware, as a run's ``environment.json`` keeps them."""
    import numpy
    import paddle

    from resnet_fit import __version__

    gpu = paddle.device.cuda.get_device_name(int(device[4:])) if device != "cpu" else None
    return {
        "resnet_fit": __version__,
        "paddle": paddle.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": processor(),
        "cores": usable_cores(),
        "device": device,
        "engine": engine,
        "gpu": gpu,
        "settings": {
            key: os.environ[key]
            for key in ("OMP_NUM_THREADS", "MKL_DEBUG_CPU_TYPE")
            if key in os.environ
        },
    }


def processor() -> str:
    """The processor's name."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
        return names[0]
    except (OSError, IndexError):
        return platform.processor() or platform.machine()
