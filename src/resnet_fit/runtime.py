"""Environment settings that make Paddle fast, the import of Paddle, and the device of a run.

    python -m resnet_fit.runtime script.py [arguments]
    python -m resnet_fit.runtime -m module [arguments]

run a program with the same settings in its environment, and change nothing else about it.

OpenMP and MKL, which Paddle uses, read their settings from the environment at their first use. None
of the settings must exist before Python starts, so a program that calls `prepare_environment`
before it imports Paddle need not be restarted.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import platform
import re
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

from resnet_fit import cuda, gpu, machine, parallel
from resnet_fit.errors import RunFailed, UserError, first_line, require
from resnet_fit.home import PADDLE, VISUALDL, home_with
from resnet_fit.machine import processor, usable_cores

# Valid names of devices.
DEVICE = r"^(auto|cpu|gpu(:\d+)?)$"

# glibc reads these variables when a program starts; later `mallopt` sets them, by the numbers of
# malloc.h.
_MALLOPT = {"MALLOC_TRIM_THRESHOLD_": -1, "MALLOC_TOP_PAD_": -2, "MALLOC_MMAP_THRESHOLD_": -3}


@dataclass(frozen=True)
class Setting:
    """An environment variable that makes Paddle fast on this machine's CPU.

    Attributes:
        variable: its name.
        value: the value for this machine.
        why: the reason, in a phrase.
        users: the user's own value, which has priority; None if not set.
    """

    variable: str
    value: str
    why: str
    users: str | None = None

    def apply(self) -> None:
        """Apply it to this process, unless the user has set a value."""
        if self.users is not None:
            return
        if self.variable in _MALLOPT:
            _mallopt()(_MALLOPT[self.variable], int(self.value))
        else:
            os.environ[self.variable] = self.value


def find_settings() -> tuple[Setting, ...]:
    """The settings for this machine, and the user's own values. Changes nothing."""
    cores = machine.cores()
    limit = "" if cores.limit is None else f" in a container of {cores.limit:g} processors"
    processes = parallel.size_here()
    shared = "" if processes == 1 else f", shared by {processes} processes"
    wanted = {
        "OMP_NUM_THREADS": (
            str(max(1, cores.usable // parallel.size_here())),
            f"one thread for each of {cores.physical} cores{limit}{shared}; Paddle's default is a "
            "single thread",
        )
    }
    if machine.vendor() not in ("", "GenuineIntel"):
        wanted["MKL_DEBUG_CPU_TYPE"] = (
            "5",
            "without it, MKL uses its slowest kernels on processors of other makers than Intel",
        )
    if _mallopt() is not _nothing:
        wanted |= {
            "MALLOC_MMAP_THRESHOLD_": (
                str(32 << 20),  # the largest value that older versions of glibc accept
                "memory blocks come from the heap, where freed memory can be reused; only the "
                "largest do not, since they would fragment it",
            ),
            "MALLOC_TRIM_THRESHOLD_": (
                str(1 << 30),
                "freed memory is kept: returning it to the system and fetching it again can take "
                "longer than the arithmetic of a step",
            ),
            "MALLOC_TOP_PAD_": (str(64 << 20), "the heap grows in large steps, which are fewer"),
        }
    return tuple(Setting(name, *rest, _users(name)) for name, rest in wanted.items())


def _users(variable: str) -> str | None:
    """The user's value; glibc's tunables set the same parameters in another way."""
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if variable in _MALLOPT and variable not in os.environ and "glibc.malloc." in tunables:
        return tunables
    return os.environ.get(variable)


@cache
def prepare_environment() -> tuple[Setting, ...]:
    """Import Paddle with settings that make it fast on this CPU. The user's own values win.

    Paddle 2.6 for GPUs is told where the CUDA libraries are, see `resnet_fit.cuda`.

    Warns if Paddle was already imported, which is too late for the number of threads, and if other
    programs use the same cores. A second call does nothing.

    Returns:
        the settings, with the user's own values.

    Raises:
        RunFailed: Paddle cannot be imported.
    """
    settings = find_settings()
    if "paddle" in sys.modules:
        _warn_if_late(settings)
    for setting in settings:
        setting.apply()
    parallel.hide_connections()
    neighbours = machine.Neighbours()
    try:
        with (
            home_with(*PADDLE),
            warnings.catch_warnings(),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            import paddle  # noqa: F401
    except Exception as error:  # a broken installation raises any exception
        raise RunFailed(
            f"Paddle cannot be imported ({first_line(error)}); install resnet-fit[cpu]"
        ) from error
    cuda.provide()
    if settings[0].users is None and parallel.size_here() == 1:
        crowded = crowding(neighbours)
        if crowded:
            warnings.warn(crowded, stacklevel=2)
    return settings


def import_visualdl() -> ModuleType:
    """Import VisualDL, also where it cannot create its folder in the home folder.

    Raises:
        RunFailed: VisualDL cannot be imported.
    """
    try:
        with home_with(*VISUALDL), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import visualdl
    except Exception as error:  # its broken dependencies raise any exception
        raise RunFailed(
            f"VisualDL cannot be imported ({first_line(error)}); pip install --upgrade visualdl, "
            "or train with --set callbacks.visualdl=null"
        ) from error
    return visualdl


def crowding(neighbours: machine.Neighbours) -> str | None:
    """A warning if other processes use the cores that a training needs; otherwise None."""
    cores, taken = machine.cores(), neighbours.cores_taken()
    left = cores.logical - taken
    if cores.usable == 1 or left > cores.usable - 0.5:
        return None
    return (
        f"other processes keep {taken:.1f} of {cores.logical} cores busy, which slows a training "
        "by far more than their share, since its threads wait for each other; meanwhile "
        f"OMP_NUM_THREADS={max(1, int(left))} may be faster"
    )


def _warn_if_late(settings: tuple[Setting, ...]) -> None:
    threads = settings[0]
    if threads.users != threads.value:
        warnings.warn(
            f"Paddle was imported before prepare_environment(), too late for "
            f"{threads.variable}={threads.value}: it computes with {threads.users} thread(s)",
            stacklevel=3,
        )


def _nothing(option: int, value: int) -> None:
    """Replaces ``mallopt`` in C libraries without it: Paddle works, but slower."""


def _mallopt() -> Callable[[int, int], object]:
    try:
        return ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return _nothing


def main() -> None:
    """Replace this process by the given program, with the settings in its environment."""
    usage = "usage: python -m resnet_fit.runtime (script.py | -m module) [arguments]"
    if len(sys.argv) < 2:
        print(usage, file=sys.stderr)
        sys.exit(2)
    if sys.argv[1] in ("-h", "--help"):
        print(usage)
        return
    mine = {s.variable: s.value for s in find_settings() if s.users is None}
    program = [sys.executable, *_pythons_options(), *sys.argv[1:]]
    os.execve(sys.executable, program, os.environ | mine)


def _pythons_options() -> list[str]:
    """Python's options before the ``-m`` of this module, which may end a group such as ``-um``."""
    options = []
    for word in sys.orig_argv[1:]:
        module = re.match(r"-([bBdEiIOPqRsSuvx]*)m", word)
        if module is None:
            options.append(word)
            continue
        return options + ([f"-{module[1]}"] if module[1] else [])
    return options


def check_device(name: str) -> None:
    """Raise UserError for a name that is not valid for `choose_device`."""
    expected = "auto, cpu, gpu or gpu:N"
    require(re.match(DEVICE, name) is not None, "device", name, expected)


def choose_device(name: str) -> str:
    """Make Paddle use a device, and return its name.

    A GPU that this Paddle cannot compute on is refused, also for ``auto``: a training on the CPU
    takes days longer, which nobody should have to find out by waiting.

    Args:
        name: ``auto`` (a GPU if there is one), ``cpu``, ``gpu`` or ``gpu:N``.

    Raises:
        UserError: this machine or this build of Paddle has no such device, or cannot compute on it.
    """
    check_device(name)
    import paddle

    received, gpus = name, gpu.count()
    if name == "auto":
        name = "gpu" if gpus or gpu.driver_problem() else "cpu"
        absence = gpu.absence() if name == "cpu" else None
        if absence and parallel.is_first():
            warnings.warn(f"Paddle is the GPU build, but {absence}: on the CPU", stacklevel=2)
    if name == "gpu" and parallel.size() > 1:  # each process uses its own GPU
        name = f"gpu:{os.environ.get('FLAGS_selected_gpus', '0').partition(',')[0]}"  # noqa: SIM112
    if name.startswith("gpu"):
        index = int(name.partition(":")[2] or 0)
        name = f"gpu:{index}"
        problem = _gpu_problem(received, index, gpus)
        if problem:
            raise UserError(f"training.device: {problem}")
    paddle.set_device(name)
    return name


def _gpu_problem(received: str, index: int, gpus: int) -> str | None:
    """One line if this machine or this Paddle has no such GPU, or cannot compute on it."""
    import paddle

    if not paddle.is_compiled_with_cuda():
        return (
            f"received {received}, but the installed Paddle is the CPU build; install "
            "resnet-fit[gpu], or use cpu"
        )
    if index < gpus:
        return gpu.problem(index)
    why = gpu.driver_problem() or gpu.absence()
    return f"received {received}, but Paddle finds {gpus} GPUs here{f': {why}' if why else ''}"


def describe(device: str, backend: str) -> dict[str, Any]:
    """Versions and hardware, as stored in a run's ``environment.json``."""
    import numpy
    import paddle

    from resnet_fit import __version__

    details = gpu.describe(int(device[4:])) if device != "cpu" else None
    return {
        "resnet_fit": __version__,
        "paddle": paddle.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": processor(),
        "cores": usable_cores(),
        "processes": parallel.size(),
        "device": device,
        "backend": backend,
        "gpu": details and details["name"],
        "gpu_details": details,
        "settings": {
            key: os.environ[key]
            for key in ("OMP_NUM_THREADS", "MKL_DEBUG_CPU_TYPE")
            if key in os.environ
        },
    }


if __name__ == "__main__":
    main()
