"""What is set before Paddle starts, and programs that are started with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from resnet_fit import machine, runtime
from resnet_fit.errors import RunFailed
from resnet_fit.runtime import find_settings

SOURCE = Path(__file__).resolve().parents[1] / "src"
VARIABLES = ("OMP_NUM_THREADS", "MKL_DEBUG_CPU_TYPE", "GLIBC_TUNABLES", *runtime._MALLOPT)
UNTOUCHED = {k: v for k, v in os.environ.items() if k not in VARIABLES}
UNTOUCHED["PYTHONPATH"] = str(SOURCE)


def python(*arguments: object, cwd: Path | None = None, **variables: str):
    """Python without any of the settings but ``variables``."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=UNTOUCHED | variables,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def bare(monkeypatch):
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)


def by_variable() -> dict[str, runtime.Setting]:
    return {setting.variable: setting for setting in find_settings()}


def test_one_thread_for_each_usable_core(bare, monkeypatch):
    monkeypatch.setattr(machine, "cores", lambda: machine.Cores(16, 8, 3.0))
    threads = by_variable()["OMP_NUM_THREADS"]
    assert (threads.value, threads.users) == ("3", None)
    assert "container of 3" in threads.why


@pytest.mark.parametrize(
    ("vendor", "switched"), [("AuthenticAMD", True), ("GenuineIntel", False), ("", False)]
)
def test_mkl_is_switched_where_it_would_be_slow(bare, monkeypatch, vendor, switched):
    monkeypatch.setattr(machine, "vendor", lambda: vendor)
    assert ("MKL_DEBUG_CPU_TYPE" in by_variable()) == switched


def test_a_users_own_value_wins(bare, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("MALLOC_TOP_PAD_", "4096")
    found = by_variable()
    assert found["OMP_NUM_THREADS"].users == "7"
    assert found["MALLOC_TOP_PAD_"].users == "4096"
    assert found["MALLOC_MMAP_THRESHOLD_"].users is None
    for setting in found.values():
        if setting.variable.startswith("OMP"):
            setting.apply()
    assert os.environ["OMP_NUM_THREADS"] == "7"


def test_glibcs_tunables_are_a_users_own_value_too(bare, monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    assert by_variable()["MALLOC_MMAP_THRESHOLD_"].users == "glibc.malloc.hugetlb=1"


def test_visualdl_that_cannot_be_imported(monkeypatch):
    monkeypatch.setitem(sys.modules, "visualdl", None)
    with pytest.raises(RunFailed, match=r"^VisualDL cannot be imported .*callbacks.visualdl=null$"):
        runtime.import_visualdl()


THREADS = """
import ctypes, os, sys, warnings
warnings.simplefilter("always")
if "late" in sys.argv:  # on a machine of two cores
    import paddle
    from resnet_fit import machine
    machine.cores = lambda: machine.Cores(2, 2, None)
from resnet_fit.runtime import prepare_environment
first = prepare_environment()
assert prepare_environment() is first
import paddle
openmp = os.path.join(os.path.dirname(paddle.__file__), "libs", "libiomp5.so")
print(ctypes.CDLL(openmp).omp_get_max_threads() if os.path.exists(openmp) else "none")
"""


def openmps_threads(process) -> int:
    assert process.returncode == 0, process.stderr
    if process.stdout == "none\n":
        pytest.skip("this Paddle has another OpenMP")
    return int(process.stdout)


def test_openmp_has_the_threads_that_were_set():
    assert openmps_threads(python("-c", THREADS)) == machine.usable_cores()
    assert openmps_threads(python("-c", THREADS, OMP_NUM_THREADS="3")) == 3


def test_too_late_is_told_in_one_line():
    process = python("-c", THREADS, "late")
    assert openmps_threads(process) == 1
    told = [line for line in process.stderr.splitlines() if "too late" in line]
    assert len(told) == 1
    assert "before prepare_environment(), too late for OMP_NUM_THREADS=2" in told[0]
    in_time = python("-c", THREADS, "late", OMP_NUM_THREADS="2")
    assert "too late" not in in_time.stderr


# Page faults of blocks that are taken and given back; a fault fetches 4 KiB.
FAULTS = """
import resource
import numpy as np
from resnet_fit.runtime import find_settings
if {apply}:
    for setting in find_settings():
        setting.apply()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    blocks = [np.ones(3_000_000) for _ in range(5)]
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(runtime._mallopt() is runtime._nothing, reason="not glibc")
def test_freed_memory_is_kept(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(FAULTS.format(apply=False))
    given_back = int(python(program).stdout)
    started_so = int(python("-m", "resnet_fit.runtime", program).stdout)
    set_later = int(python("-c", FAULTS.format(apply=True)).stdout)
    assert started_so < given_back / 3
    assert set_later < given_back / 3


def test_paddle_that_cannot_be_imported_is_told_in_one_line(tmp_path):
    (tmp_path / "paddle.py").write_text("raise ImportError('libstrange.so: cannot open')")
    program = (
        "from resnet_fit.errors import RunFailed\n"
        "from resnet_fit.runtime import prepare_environment\n"
        "try:\n    prepare_environment()\n"
        "except RunFailed as error:\n    print(error)\n"
    )
    process = python("-c", program, PYTHONPATH=f"{tmp_path}{os.pathsep}{SOURCE}")
    (line,) = process.stdout.splitlines()
    assert line.startswith("Paddle cannot be imported (ImportError: libstrange.so: cannot open)")


class Taking:
    def __init__(self, cores: float) -> None:
        self._cores = cores

    def cores_taken(self) -> float:
        return self._cores


@pytest.mark.parametrize(
    ("cores", "taken", "advised"),
    [
        ((2, 2, None), 0.3, None),
        ((2, 2, None), 1.9, 1),
        ((16, 16, None), 3.2, 12),
        ((16, 8, None), 6.0, None),  # eight cores' other threads are free
        ((64, 64, 4.0), 50.0, None),
        ((1, 1, None), 1.0, None),
    ],
)
def test_others_that_need_the_cores_are_told_of(monkeypatch, cores, taken, advised):
    monkeypatch.setattr(machine, "cores", lambda: machine.Cores(*cores))
    told = runtime.crowding(Taking(taken))
    if advised is None:
        assert told is None
    else:
        assert told is not None
        assert f"keep {taken} of {cores[0]} cores busy" in told
        assert f"OMP_NUM_THREADS={advised} " in told


def test_the_command_tells_of_them_in_one_line_unless_threads_were_chosen(repository):
    program = (
        "import sys\n"
        "from resnet_fit import cli, runtime\n"
        "runtime.crowding = lambda neighbours: 'it is crowded'\n"
        "sys.exit(cli.main(['check', '--config', sys.argv[1]]))\n"
    )
    config = repository / "configs/resnet18_digits.yaml"
    told = python("-c", program, config)
    assert (told.returncode, told.stderr) == (0, "resnet-fit: warning: it is crowded\n")
    assert python("-c", program, config, OMP_NUM_THREADS="1").stderr == ""


# --- a program started with all of it -------------------------------------------------

PROGRAM = """
import os, sys
import helper
print(sys.argv, __name__, sys.path[0], sys.modules["__main__"].__file__)
print(sys.flags.optimize, sys.flags.dev_mode, input.__module__)
def fail():
    raise ValueError("so it ends")
if "exit" in sys.argv:
    sys.exit(7)
if "kill" in sys.argv:
    os.kill(os.getpid(), 9)
if "fail" in sys.argv:
    fail()
"""


@pytest.fixture
def program(tmp_path) -> Path:
    (tmp_path / "helper.py").write_text("")
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)
    return file


@pytest.mark.parametrize("ending", ["well", "exit", "kill", "fail"])
@pytest.mark.parametrize("how", ["script", "module"])
@pytest.mark.parametrize("options", [[], ["-O", "-X", "dev"]])
def test_a_program_notices_nothing(program, ending, how, options):
    """Arguments, ``__main__``, ``sys.path``, exit code and traceback are those of Python alone."""
    what = [program] if how == "script" else ["-m", "program"]
    arguments = [*what, ending, "-m", "--help"]
    alone = python(*options, *arguments, cwd=program.parent)
    ours = python(*options, "-m", "resnet_fit.runtime", *arguments, cwd=program.parent)
    assert (ours.stdout, ours.stderr, ours.returncode) == (
        alone.stdout,
        alone.stderr,
        alone.returncode,
    )
    codes = {"well": 0, "exit": 7, "kill": -signal.SIGKILL, "fail": 1}
    assert ours.returncode == codes[ending]


def test_pythons_short_options_may_be_joined(program):
    process = python("-OBm", "resnet_fit.runtime", program)
    assert process.stdout.splitlines()[1].startswith("1 ")


def test_a_program_has_the_settings_and_keeps_the_users(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(f"import os\nprint([os.environ.get(name) for name in {VARIABLES}])")
    expected = {s.variable: s.value for s in find_settings()} | {"OMP_NUM_THREADS": "5"}
    process = python("-m", "resnet_fit.runtime", program, OMP_NUM_THREADS="5")
    assert process.stdout == f"{[expected.get(name) for name in VARIABLES]}\n"


def test_without_a_program():
    process = python("-m", "resnet_fit.runtime")
    assert process.returncode == 2
    assert len(process.stderr.splitlines()) == 1
    assert python("-m", "resnet_fit.runtime", "--help").returncode == 0
