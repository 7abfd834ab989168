"""What this machine is, what was set to make Paddle fast on it, and what each setting brings."""

from __future__ import annotations

import os
import platform
import shutil
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console

from resnet_fit import __version__, cuda, gpu, machine
from resnet_fit.errors import RunFailed, UserError
from resnet_fit.files import json_text
from resnet_fit.reports.alternation import alternate
from resnet_fit.reports.table import print_table
from resnet_fit.reports.trial import IMAGES, STEP, Trial
from resnet_fit.runtime import (
    Setting,
    choose_device,
    crowding,
    find_settings,
    import_visualdl,
    prepare_environment,
)

# Under which names pip knows what a run needs.
PACKAGES = {
    "paddle": ("paddlepaddle", "paddlepaddle-gpu"),
    "numpy": ("numpy",),
    "visualdl": ("visualdl",),
}
ROUNDS = 3
# oneDNN and Paddle add up in another order; results further apart than this are wrong.
ROUNDING = 1e-3
LITTLE_DISK_GB = 1.0


@dataclass(frozen=True)
class Gain:
    """Images per second without something and with it."""

    what: str
    images_without: float
    images_with: float
    ratio: float


@dataclass
class Diagnosis:
    """What was found. ``problems`` keep a training from working; ``warnings`` do not."""

    versions: dict[str, str | None] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    settings: Sequence[Setting] = ()
    gains: list[Gain] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def diagnose(output: Path, console: Console, measure: bool = True, as_json: bool = False) -> None:
    """Look at this machine and print what was found.

    Args:
        output: the folder that runs go to.
        measure: whether to time what each setting brings, which takes about 20 seconds.
        as_json: one JSON object instead of tables.

    Raises:
        RunFailed: something is broken; one line for each thing, with what to do.
    """
    found = examine(output)
    if measure and not found.problems:
        with console.status("measuring, about 20 seconds"):
            try:
                found.gains = measure_gains(found.settings)
            except RunFailed as error:
                found.problems.append(f"a training step does not work: {error}")
    if as_json:
        console.print(json_text(asdict(found)), end="", soft_wrap=True)
    else:
        show(found, console)
    if found.problems:
        raise RunFailed("\n".join(found.problems))


def examine(output: Path) -> Diagnosis:
    """Everything but the measurement."""
    found = Diagnosis(_versions(), settings=find_settings())
    neighbours = machine.Neighbours()
    _examine_machine(found)
    _examine_disk(found, output)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other processes, told below
            found.settings = prepare_environment()
    except RunFailed as error:
        found.problems.append(str(error))
    else:
        _examine_paddle(found)
    _examine_visualdl(found)
    found.machine["cores that others keep busy"] = round(neighbours.cores_taken(), 1)
    crowded = crowding(neighbours)
    if crowded and found.settings[0].users is None:
        found.warnings.append(crowded)
    return found


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {
        "resnet-fit": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
    }
    for name, distributions in PACKAGES.items():
        found[name] = None
        for distribution in distributions:
            with suppress(PackageNotFoundError):
                found[name] = version(distribution)
    return found


def _examine_machine(found: Diagnosis) -> None:
    cores, memory = machine.cores(), machine.memory()
    found.machine |= {
        "processor": machine.processor(),
        "bfloat16": machine.has_bfloat16(),
        "physical cores": cores.physical,
        "logical cores": cores.logical,
        "container's limit, cores": cores.limit,
        "threads to compute with": cores.usable,
        "memory available, GB": _gigabytes(memory.available),
        "container's limit, GB": _gigabytes(memory.limit),
        "shared memory (not needed), GB": _gigabytes(_free(Path("/dev/shm"))),
    }


def _examine_disk(found: Diagnosis, output: Path) -> None:
    """The room where runs will go, or where their folder will be made."""
    place = next((p for p in (output, *output.absolute().parents) if p.exists()), Path("/"))
    free = _gigabytes(_free(place))
    found.machine[f"free on the disk of {output}, GB"] = free
    if not place.is_dir() or not os.access(place, os.W_OK):
        found.problems.append(f"{place}: nothing can be written there; choose another --output")
    elif free is not None and free < LITTLE_DISK_GB:
        found.warnings.append(f"{output}: {free:.1f} GB are free on this disk; see --output")


def _examine_paddle(found: Diagnosis) -> None:

    from resnet_fit.backends import choose_backend, onednn_problem

    device = _examine_gpus(found)
    backend = choose_backend("auto", device)
    problem = onednn_problem()
    found.machine["device and backend by auto"] = f"{device}, {backend}"
    if problem:
        found.versions["oneDNN"] = None
        found.warnings.append(f"no onednn backend, which is faster on CPUs: {problem}")
        return
    from resnet_fit.backends.onednn import dnnl

    found.versions["oneDNN"] = dnnl.version()
    apart = backends_apart()
    if not apart < ROUNDING:
        found.problems.append(
            f"the onednn backend computes wrongly here ({apart:.1e} beside Paddle's own results); "
            "train with --set training.backend=paddle"
        )


def _examine_gpus(found: Diagnosis) -> str:
    """GPUs, their driver and libraries, and whether Paddle can use them; the device by ``auto``."""
    import paddle

    if not paddle.is_compiled_with_cuda():
        found.machine |= {"Paddle is built for": "CPU", "GPUs": []}
        if Path("/dev/nvidia0").exists():
            found.warnings.append(
                "an NVIDIA GPU is here, but the installed Paddle is the CPU build; see README.md"
            )
        return choose_device("cpu")
    gpus, code, driver = gpu.count(), gpu.compiled_for(), gpu.driver()
    found.machine |= {
        "Paddle is built for": f"CUDA {paddle.version.cuda()}, cuDNN {paddle.version.cudnn()}",
        "with code for capabilities": "unknown" if code is None else gpu.listed(code),
        "NVIDIA driver": None if driver is None else str(driver),
        "GPUs": [str(gpu.card(i)) for i in range(gpus)],
    }
    if cuda.needed():
        found.machine |= {x.library.file: _opened(x) for x in cuda.find()}
    absence = gpu.absence()
    if gpu.driver_problem() and not gpus:
        found.problems.append(str(gpu.driver_problem()))
    elif absence:
        found.warnings.append(f"Paddle is the GPU build, but {absence}: it trains on the CPU")
    for index, trouble in enumerate(map(gpu.problem, range(gpus))):
        # The first GPU is the one that a run takes by itself.
        if trouble:
            (found.warnings if index else found.problems).append(trouble)
    with warnings.catch_warnings(), suppress(UserError):
        warnings.simplefilter("ignore")  # of the absence of a GPU, told above
        return choose_device("auto")
    return choose_device("cpu")


def _opened(found: cuda.Found) -> str:
    """Where a CUDA library is from, and whether it can be opened."""
    broken = found.path is not None and not cuda.opens(found.path)
    return f"{found.origin}, which cannot be opened" if broken else found.origin


def backends_apart() -> float:
    """The largest difference of a small network's outputs by oneDNN, relative to Paddle's own."""
    import paddle

    from resnet_fit.backends import use_backend
    from resnet_fit.networks import resnet

    paddle.set_device("cpu")
    network = resnet([1, 1], 10, "cifar", width=16)
    network.eval()
    images = paddle.rand([2, 3, 16, 16])
    expected = network(images)
    use_backend(network, "onednn")
    return float((network(images) - expected).abs().max() / expected.abs().max())


def _examine_visualdl(found: Diagnosis) -> None:
    try:
        import_visualdl()
    except RunFailed as error:
        found.problems.append(str(error))


def measure_gains(settings: Sequence[Setting]) -> list[Gain]:
    """A training step without and with each setting, in processes that take turns.

    Raises:
        RunFailed: one of them has died.
    """
    from resnet_fit.backends import onednn_problem

    plain = Trial("paddle")
    best = plain if onednn_problem() else Trial("onednn")
    values = {s.variable: s.users or s.value for s in settings}
    memory = frozenset(name for name in values if name.startswith("MALLOC_"))
    pairs: dict[str, tuple[Trial, Trial]] = {}
    if values["OMP_NUM_THREADS"] != "1":
        one_thread = replace(best, without=frozenset(["OMP_NUM_THREADS"]))
        pairs[f"OMP_NUM_THREADS={values['OMP_NUM_THREADS']}"] = one_thread, best
    if memory:
        pairs["MALLOC_..."] = replace(best, without=memory), best
    if "MKL_DEBUG_CPU_TYPE" in values:  # oneDNN has its own kernels
        slow = replace(plain, without=frozenset(["MKL_DEBUG_CPU_TYPE"]))
        pairs["MKL_DEBUG_CPU_TYPE, paddle backend"] = slow, plain
    if best is not plain:
        pairs["onednn backend"] = plain, best
        if machine.has_bfloat16():
            pairs["bfloat16"] = best, replace(best, dtype="bfloat16")
    pairs["all but bfloat16"] = replace(plain, without=frozenset(values)), best

    trials = dict.fromkeys(trial for pair in pairs.values() for trial in pair)
    seconds = alternate({trial: trial.start() for trial in trials}, ROUNDS)
    speed = {trial: IMAGES / taken for trial, taken in seconds.items()}
    return [
        Gain(what, round(speed[a], 1), round(speed[b], 1), round(speed[b] / speed[a], 2))
        for what, (a, b) in pairs.items()
    ]


def show(found: Diagnosis, console: Console) -> None:
    """Print tables on a terminal, and plain lines elsewhere."""
    _print(console, ("version", ""), found.versions.items())
    _print(console, ("machine", ""), found.machine.items())
    settings = [
        (s.variable, s.users or s.value, s.why if s.users is None else "your own, which wins")
        for s in found.settings
    ]
    _print(console, ("setting", "value", "why"), settings)
    if found.gains:
        gains = [(g.what, g.images_without, g.images_with, f"{g.ratio}x") for g in found.gains]
        _print(console, ("what it brings", "images/s without", "with", "ratio"), gains)
        console.print(f"{STEP}; medians of {ROUNDS} rounds")
    for warning in found.warnings:
        console.print(f"warning: {warning}")
    if not found.problems:
        console.print("nothing is broken")


def _print(console: Console, header: Sequence[str], rows: Iterable[tuple[Any, ...]]) -> None:
    print_table(console, header, [tuple(map(_text, row)) for row in rows])


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)


def _free(folder: Path) -> int | None:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def _gigabytes(size: int | None) -> float | None:
    return None if size is None else round(size / 1e9, 1)
