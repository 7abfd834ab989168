"""What is read of processor, cores, containers and memory, on machines made of files."""

from __future__ import annotations

import os
import time

import pytest

from resnet_fit import machine


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Another machine's files, by their paths."""
    monkeypatch.setattr(machine, "ROOT", tmp_path)

    def write_file(path: str, content: str) -> None:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content + "\n")

    return write_file


@pytest.fixture
def allow(monkeypatch):
    def allow_processors(*numbers: int) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(numbers), raising=False)

    return allow_processors


def hyperthreads(write, pairs: int) -> None:
    """Processor n shares its core with n + ``pairs``."""
    for cpu in range(2 * pairs):
        first = cpu % pairs
        file = f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
        write(file, f"{first},{first + pairs}")


def test_hyperthreads_share_a_core(write, allow):
    hyperthreads(write, 4)
    allow(*range(8))
    cores = machine.cores()
    assert (cores.logical, cores.physical, cores.limit, cores.usable) == (8, 4, None, 4)


@pytest.mark.parametrize(("allowed", "physical"), [((0, 4), 1), ((0, 1), 2), ((1, 2, 5), 2)])
def test_only_allowed_processors_count(write, allow, allowed, physical):
    hyperthreads(write, 4)
    allow(*allowed)
    assert machine.usable_cores() == physical


def test_a_machine_that_tells_nothing(write, allow):
    allow(0, 1, 2)
    assert machine.cores() == machine.Cores(logical=3, physical=3, limit=None)
    assert machine.memory() == machine.Memory(None, None, None)
    assert machine.processor()
    assert machine.vendor() == ""
    assert not machine.has_bfloat16()
    assert machine.Neighbours().cores_taken() == 0


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs Linux")
def test_this_machine_as_psutil_sees_it(allow):
    psutil = pytest.importorskip("psutil")
    allow(*range(psutil.cpu_count()))
    assert machine.cores().physical == psutil.cpu_count(logical=False)
    assert machine.memory().total == psutil.virtual_memory().total


@pytest.mark.parametrize(
    ("quota", "usable"),
    [("30000", 1), ("120000", 1), ("150000", 2), ("240000", 2), ("900000", 4), ("max", 4)],
)
def test_a_containers_limit(write, allow, quota, usable):
    hyperthreads(write, 4)
    allow(*range(8))
    write("proc/self/cgroup", "0::/")
    write("sys/fs/cgroup/cpu.max", f"{quota} 100000")
    assert machine.usable_cores() == usable


def test_the_narrowest_group_on_the_way_up_counts(write, allow):
    allow(*range(8))
    write("proc/self/cgroup", "0::/service/job")
    write("sys/fs/cgroup/service/job/cpu.max", "max 100000")
    write("sys/fs/cgroup/service/cpu.max", "250000 100000")
    write("sys/fs/cgroup/cpu.max", "800000 100000")
    assert machine.cores().limit == 2.5


@pytest.mark.parametrize(("quota", "limit"), [("300000", 3.0), ("-1", None)])
def test_version_1_control_groups_seen_from_inside_a_container(write, allow, quota, limit):
    """The path is the outside world's; the mounted folder is the container's own."""
    allow(*range(8))
    write("proc/self/cgroup", "5:cpu,cpuacct:/docker/0a1b\n4:memory:/docker/0a1b\n0::/")
    write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", quota)
    write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000")
    write("proc/meminfo", "MemTotal:  1000 kB\nMemAvailable:   600 kB\nHugePages_Total: 0")
    write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712")
    assert machine.cores().limit == limit
    assert machine.memory() == machine.Memory(1_024_000, 614_400, None)


def test_the_most_memory_of_this_process(write):
    assert machine.peak_memory() is None
    write("proc/self/status", "Name:\tpython\nVmPeak:\t  999 kB\nVmHWM:\t     250 kB\n")
    assert machine.peak_memory() == 250 * 1024


def test_memory_of_a_container(write):
    write("proc/meminfo", "MemTotal:  1000 kB\nMemAvailable:   600 kB")
    write("proc/self/cgroup", "0::/a")
    write("sys/fs/cgroup/a/memory.max", "500000")
    write("sys/fs/cgroup/memory.max", "max")
    assert machine.memory().limit == 500_000


@pytest.mark.parametrize(
    ("flags", "has"), [("fma avx512_bf16", True), ("amx_bf16", True), ("avx512f bf16x", False)]
)
def test_processor(write, flags, has):
    write(
        "proc/cpuinfo",
        "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC 9\n"
        f"flags\t\t: {flags}\n\nprocessor\t: 1\nmodel name\t: other",
    )
    assert machine.processor() == "AMD EPYC 9"
    assert machine.vendor() == "AuthenticAMD"
    assert machine.has_bfloat16() == has


def test_what_neighbours_take_is_neither_ours_nor_idle(write, allow, monkeypatch):
    """In 10 s: others 12 s of work, a guest of the machine 1 s, this process 3 s."""
    now, own = [100.0], [7.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(os, "times", lambda: (own[0], 0.0, 0.0, 0.0, 0.0))
    monkeypatch.setattr(os, "sysconf", lambda _: 100)
    allow(0, 1)
    #     user nice system idle iowait irq softirq steal guest
    write("proc/stat", "cpu  0 0 0 0 0 0 0 0\ncpu0 10 0 0 5 5 0 0 0 0\ncpu1 0 0 0 0 0 0 0 0 0")
    neighbours = machine.Neighbours()
    now[0], own[0] = 110.0, 10.0
    write(
        "proc/stat",
        "cpu  0 0 0 0 0 0 0 0\ncpu0 910 50 50 5 5 0 0 0 900\ncpu1 400 0 50 300 200 25 25 100 0\n"
        "cpu2 1000 0 0 0 0 0 0 0 0",
    )
    assert neighbours.cores_taken() == pytest.approx((12 + 1) / 10)
