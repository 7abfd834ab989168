"""The resources of this process: processor, cores, memory, and the load by other processes.

Read from ``/proc`` and ``/sys``; where these are missing, from the standard library.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

# Tests change it to folders with files of other machines.
ROOT = Path("/")


def processor() -> str:
    """The processor's name."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def vendor() -> str:
    """The vendor id of an x86 processor, such as ``AuthenticAMD``; empty for others."""
    return _cpuinfo("vendor_id")


def has_bfloat16() -> bool:
    """Whether the processor has bfloat16 instructions (AVX512-BF16 or AMX)."""
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(_cpuinfo("flags").split())


@dataclass(frozen=True)
class Cores:
    """The cores that a process may use.

    Attributes:
        logical: logical processors, by the CPU affinity.
        physical: physical cores of these: two hyperthreads share one.
        limit: the container's CPU limit, in processors; None without a limit.
    """

    logical: int
    physical: int
    limit: float | None

    @property
    def usable(self) -> int:
        """Threads to compute with: one for each physical core, at most the rounded CPU limit."""
        if self.limit is None:
            return self.physical
        return max(1, min(self.physical, int(self.limit + 0.5)))


def cores() -> Cores:
    """The cores of this process."""
    if hasattr(os, "sched_getaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
    else:
        allowed = list(range(os.cpu_count() or 1))
    topology = ROOT / "sys/devices/system/cpu"
    # Hyperthreads of one core have the same list; without a list each counts as a core.
    siblings = {
        _read(topology / f"cpu{cpu}/topology/thread_siblings_list") or str(cpu) for cpu in allowed
    }
    return Cores(len(allowed), len(siblings), _cpu_limit())


def usable_cores() -> int:
    """Threads that this process should compute with."""
    return cores().usable


def _cpu_limit() -> float | None:
    limits = []
    for group in _cgroups("cpu"):
        quota, _, period = _read(group / "cpu.max").partition(" ")  # version 2: "150000 100000"
        if not quota:
            quota, period = (_read(group / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
        if quota.isdigit() and period.isdigit():  # else "max", "-1" or nothing: no limit
            limits.append(int(quota) / int(period))
    return min(limits, default=None)


@dataclass(frozen=True)
class Memory:
    """Bytes of memory: in the machine, available now, and the container's limit."""

    total: int | None
    available: int | None
    limit: int | None


def memory() -> Memory:
    """The memory of this machine and of this process's container."""
    lines = (line.partition(":") for line in _read(ROOT / "proc/meminfo").splitlines())
    sizes = {name: int(value.split()[0]) * 1024 for name, _, value in lines if value.strip()}
    total = sizes.get("MemTotal")
    limits = []
    for group in _cgroups("memory"):
        limit = _read(group / "memory.max") or _read(group / "memory.limit_in_bytes")
        if limit.isdigit() and (total is None or int(limit) < total):  # huge in version 1: no limit
            limits.append(int(limit))
    return Memory(total, sizes.get("MemAvailable"), min(limits, default=None))


def peak_memory() -> int | None:
    """The peak memory of this process so far, in bytes; None if unknown."""
    for line in _read(ROOT / "proc/self/status").splitlines():
        name, _, value = line.partition(":")
        if name == "VmHWM":
            return int(value.split()[0]) * 1024
    return None


class Neighbours:
    """Measures the load by other processes on our processors, since this object was created."""

    def __init__(self) -> None:
        self._started = self._seconds()

    def cores_taken(self) -> float:
        """The load in processors, other virtual machines included; 0.0 if unknown."""
        (wall, busy, own), (wall0, busy0, own0) = self._seconds(), self._started
        return max(0.0, (busy - busy0 - own + own0) / max(wall - wall0, 1e-9)) if busy else 0.0

    @staticmethod
    def _seconds() -> tuple[float, float, float]:
        """Wall time, CPU time of all processes, and CPU time of this process."""
        try:
            names = {f"cpu{cpu}" for cpu in os.sched_getaffinity(0)}
            ticks = os.sysconf("SC_CLK_TCK")
        except AttributeError:
            return time.monotonic(), 0.0, 0.0
        busy = 0
        for line in _read(ROOT / "proc/stat").splitlines():
            name, *counts = line.split()
            if name in names:
                user, nice, system, _idle, _waiting, *interrupts_and_steal = map(int, counts[:8])
                busy += user + nice + system + sum(interrupts_and_steal)
        return time.monotonic(), busy / ticks, sum(os.times()[:4])


def _cgroups(controller: str) -> Iterator[Path]:
    """Folders of this process's control groups, each with all its parents.

    Inside a container the path is often that of the host, and only the top folder exists.
    """
    for line in _read(ROOT / "proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        top = ROOT / "sys/fs/cgroup"
        if number != "0":  # version 1 has a hierarchy for each controller
            if controller not in controllers.split(","):
                continue
            top = top / controllers
        group = PurePosixPath(path)
        yield from (top / str(part).lstrip("/") for part in (group, *group.parents))


def _cpuinfo(key: str) -> str:
    for line in _read(ROOT / "proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
