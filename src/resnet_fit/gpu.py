"""NVIDIA GPUs: what is here, and whether the installed Paddle can compute on it.

A GPU runs machine code of its own compute capability, and of lower ones with the same first number:
code for 8.6 also runs on 8.9, but not on 9.0. (CUDA C++ Programming Guide, "Binary Compatibility".)
Without such code the first operation fails with "no kernel image is available for execution on the
device", so it is looked at before anything starts.
"""

from __future__ import annotations

import ctypes
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from resnet_fit import cuda

Version = tuple[int, int]

# Of PyPI's paddlepaddle-gpu 2.6.2, by NVIDIA's cuobjdump. It has no PTX, which a driver could
# compile for newer GPUs. Paddle 3.3 tells its own; what others have is not known.
CODE_OF_2_6: tuple[Version, ...] = ((6, 1), (7, 0), (7, 5), (8, 0), (8, 6))

# The oldest driver for each CUDA version. (NVIDIA, "CUDA Compatibility", table 1.)
OLDEST_DRIVER = {11: 450, 12: 525, 13: 580}

# What the driver says of itself on Linux; WSL has no such file.
DRIVERS_FILE = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Driver:
    """The NVIDIA driver: its version, if that is known, and the newest CUDA that it runs."""

    version: str | None
    cuda: Version

    def __str__(self) -> str:
        return f"{self.version or 'of unknown version'}, for CUDA up to {_dotted(self.cuda)}"


@dataclass(frozen=True)
class Card:
    """A GPU. ``capability`` is its compute capability, None if Paddle cannot tell."""

    index: int
    name: str
    capability: Version | None

    def __str__(self) -> str:
        known = "unknown" if self.capability is None else _dotted(self.capability)
        return f"{self.name}, compute capability {known}"


def count() -> int:
    """The number of GPUs that Paddle can use; 0 for a CPU build, and with a driver too old."""
    import paddle

    if not paddle.is_compiled_with_cuda():
        return 0
    try:
        return paddle.device.cuda.device_count()
    except Exception:  # Paddle's own, whatever CUDA says
        return 0


def card(index: int) -> Card:
    """What Paddle knows of a GPU."""
    import paddle

    capability = None
    with suppress(Exception):  # of a CPU build, and where CUDA fails
        major, minor = paddle.device.cuda.get_device_capability(index)
        capability = (int(major), int(minor))
    return Card(index, paddle.device.cuda.get_device_name(index), capability)


@cache
def driver() -> Driver | None:
    """The NVIDIA driver; None where there is none."""
    number = ctypes.c_int()
    try:
        if ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(number)):
            return None  # a stub that programs are linked with
    except (OSError, AttributeError):
        return None
    return Driver(_driver_version(), (number.value // 1000, number.value % 1000 // 10))


def compiled_for() -> tuple[Version, ...] | None:
    """The compute capabilities that the installed Paddle has machine code for; None if unknown."""
    import paddle

    if cuda.needed():
        return CODE_OF_2_6
    # Paddle 3.3 has this; [80, 90] etc.
    archs: list[int] = getattr(paddle.version, "cuda_archs", list)()
    return tuple(sorted((arch // 10, arch % 10) for arch in archs)) or None


def runs(code: tuple[Version, ...], capability: Version) -> bool:
    """Whether one of these capabilities' machine code runs on a GPU of ``capability``."""
    return any(major == capability[0] and minor <= capability[1] for major, minor in code)


def absence() -> str | None:
    """Why the GPU build of Paddle finds no GPU here; None for a CPU build, and if it finds one."""
    import paddle

    if not paddle.is_compiled_with_cuda() or count():
        return None
    if driver() is None:
        return "no NVIDIA driver is here (libcuda.so.1)"
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        visible = os.environ["CUDA_VISIBLE_DEVICES"]
        return f"CUDA_VISIBLE_DEVICES={visible} leaves it no GPU"
    return "its driver shows no GPU (nvidia-smi may tell why)"


def driver_problem() -> str | None:
    """One line if the driver is too old for the installed Paddle, otherwise None."""
    import paddle

    if not paddle.is_compiled_with_cuda() or _hidden():
        return None
    here, built = driver(), re.match(r"\d+", str(paddle.version.cuda()))
    if here is None or built is None or here.cuda[0] >= int(built[0]):
        return None
    oldest = OLDEST_DRIVER.get(int(built[0]))
    return (
        f"the NVIDIA driver is too old ({here}) for this Paddle, which is built for CUDA "
        f"{paddle.version.cuda()}; install driver {f'{oldest} or ' if oldest else ''}newer, "
        "or use --device cpu"
    )


def _hidden() -> bool:
    """Whether the user lets no program see a GPU."""
    return os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")


def problem(index: int) -> str | None:
    """One line if this Paddle cannot compute on this GPU, with what to do; otherwise None."""
    return driver_problem() or _code_problem(index) or _library_problem()


def _code_problem(index: int) -> str | None:
    import paddle

    code = compiled_for()
    if code is None:
        return None
    here = card(index)
    if here.capability is None or runs(code, here.capability):
        return None
    if here.capability < code[0]:
        advice = "use --device cpu"
    elif paddle.version.full_version.startswith("2."):
        advice = "install Paddle 3 from Paddle's own index (docs/gpu.md), or use --device cpu"
    else:
        advice = (
            "install Paddle for a newer CUDA from Paddle's own index (docs/gpu.md), or use "
            "--device cpu"
        )
    return (
        f"Paddle {paddle.version.full_version} has no machine code for gpu:{index} ({here}), only "
        f"for {listed(code)}; {advice}"
    )


def _library_problem() -> str | None:
    lost = cuda.missing() if cuda.needed() else []
    if not lost:
        return None
    return (
        f"{', '.join(x.file for x in lost)} not found, which this Paddle needs on a GPU; "
        f"pip install {' '.join(dict.fromkeys(x.distribution for x in lost))} "
        "(resnet-fit[gpu] has them), or use --device cpu"
    )


def describe(index: int) -> dict[str, Any]:
    """A GPU with its driver and libraries, as stored in a run's ``environment.json``."""
    import paddle

    here, of_driver = card(index), driver()
    return {
        "name": here.name,
        "capability": here.capability and _dotted(here.capability),
        "driver": of_driver and of_driver.version,
        "driver_cuda": of_driver and _dotted(of_driver.cuda),
        "paddle_cuda": paddle.version.cuda(),
        "paddle_cudnn": paddle.version.cudnn(),
        "cudnn": cudnn(),
        "libraries": {f.library.file: f.origin for f in cuda.find()} if cuda.needed() else None,
    }


def summary(index: int) -> str:
    """The same in one line, for people."""
    facts = describe(index)
    capability, version = facts["capability"] or "unknown", facts["driver"] or "unknown"
    origin = (facts["libraries"] or {}).get("libcudnn.so.8")
    return (
        f"{facts['name']}, compute capability {capability}; driver {version}; Paddle for CUDA "
        f"{facts['paddle_cuda']}; cuDNN {facts['cudnn'] or 'unknown'}"
        + (f" ({origin})" if origin else "")
    )


def cudnn() -> str | None:
    """The version of the cuDNN that Paddle has opened; None if it has not, or cannot tell."""
    import paddle

    number = None
    with suppress(Exception):
        number = paddle.device.get_cudnn_version()
    if not number or number < 0:
        return None
    # 8906 is 8.9.6, and 91002 is 9.10.2.
    major, rest = divmod(number, 1000 if number < 10_000 else 10_000)
    return f"{major}.{rest // 100}.{rest % 100}"


def listed(code: tuple[Version, ...]) -> str:
    """Compute capabilities in words."""
    return ", ".join(map(_dotted, code))


def _dotted(version: Version) -> str:
    return f"{version[0]}.{version[1]}"


def _driver_version() -> str | None:
    with suppress(OSError):
        text = DRIVERS_FILE.read_text(errors="replace")
        found = re.search(r"^NVRM version:.*?\s(\d+\.\d+(?:\.\d+)?)\s", text, re.MULTILINE)
        if found:
            return found[1]
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL("libnvidia-ml.so.1")
        text_of = ctypes.create_string_buffer(80)  # NVML_SYSTEM_DRIVER_VERSION_BUFFER_SIZE
        if not library.nvmlInit_v2() and not library.nvmlSystemGetDriverVersion(text_of, 80):
            return text_of.value.decode("ascii", "replace") or None
    return None
