"""GPUs that a run may take, by pretended cards: no card is needed, and none was at hand."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import paddle
import pytest

from resnet_fit import cuda, fit, gpu, parse_config
from resnet_fit.cli import main
from resnet_fit.errors import UserError
from resnet_fit.reports import doctor
from resnet_fit.runs import experiment
from resnet_fit.runtime import choose_device, describe

SOURCE = Path(__file__).resolve().parents[1] / "src"
DRIVER = gpu.Driver("535.104.05", (12, 2))


@pytest.fixture
def pretend(monkeypatch):
    """A GPU build of Paddle that sees cards; returns the devices that were chosen."""

    def build(
        *capabilities: tuple[int, int],
        version: str = "2.6.2",
        built_for: str = "11.8",
        archs: list[int] | None = None,
        driver: gpu.Driver | None = DRIVER,
    ) -> list[str]:
        chosen: list[str] = []
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.setattr(gpu, "driver", lambda: driver)
        monkeypatch.setattr(cuda, "missing", list)
        monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: True)
        monkeypatch.setattr(paddle, "set_device", chosen.append)
        monkeypatch.setattr(paddle.version, "full_version", version)
        monkeypatch.setattr(paddle.version, "cuda", lambda: built_for)
        monkeypatch.setattr(paddle.version, "cuda_archs", lambda: archs or [], raising=False)
        cards = paddle.device.cuda
        monkeypatch.setattr(cards, "device_count", lambda: len(capabilities))
        monkeypatch.setattr(cards, "get_device_name", lambda index: f"NVIDIA Pretended {index}")
        monkeypatch.setattr(cards, "get_device_capability", lambda index: capabilities[index])
        return chosen

    return build


def refusal(device: str) -> str:
    with pytest.raises(UserError) as error:
        choose_device(device)
    (line,) = str(error.value).splitlines()
    assert line.startswith("training.device: ")
    return line


# --- has this Paddle code for the card? ------------------------------------------------


@pytest.mark.parametrize("device", ["auto", "gpu", "gpu:0"])
def test_a_card_newer_than_the_wheels_code_is_refused(pretend, device):
    chosen = pretend((9, 0))
    assert refusal(device) == (
        "training.device: Paddle 2.6.2 has no machine code for gpu:0 (NVIDIA Pretended 0, compute "
        "capability 9.0), only for 6.1, 7.0, 7.5, 8.0, 8.6; install Paddle 3 from Paddle's own "
        "index (docs/gpu.md), or use --device cpu"
    )
    assert chosen == []
    assert choose_device("cpu") == "cpu"


@pytest.mark.parametrize("capability", [(5, 2), (6, 0)])
def test_an_older_one_too(pretend, capability):
    pretend(capability)
    line = refusal("auto")
    assert "compute capability {}.{})".format(*capability) in line
    assert line.endswith("; use --device cpu")


@pytest.mark.parametrize("capability", [(6, 1), (7, 0), (7, 5), (8, 0), (8, 6), (8, 9)])
def test_a_card_with_code_is_taken(pretend, capability):
    chosen = pretend(capability)
    assert choose_device("auto") == "gpu:0"
    assert chosen == ["gpu:0"]


def test_code_runs_on_the_same_major_version_upwards():
    assert gpu.runs(((8, 0),), (8, 9))
    assert not gpu.runs(((8, 6),), (8, 0))
    assert not gpu.runs(((8, 0), (12, 0)), (9, 0))


def test_of_several_cards_another_may_do(pretend):
    pretend((9, 0), (8, 9))
    assert "gpu:0" in refusal("auto")
    assert choose_device("gpu:1") == "gpu:1"


def test_paddle_3_tells_what_it_has_code_for(pretend):
    def build(capability):
        pretend(capability, version="3.3.1", built_for="12.6", archs=[75, 80, 86, 90])

    for capability in ((7, 5), (8, 9), (9, 0)):
        build(capability)
        assert choose_device("auto") == "gpu:0"
    build((12, 0))
    line = refusal("auto")
    assert "only for 7.5, 8.0, 8.6, 9.0; install Paddle for a newer CUDA" in line


@pytest.mark.parametrize("build", [("3.0.0", "12.6"), ("2.6.2", "12.0"), ("2.5.2", "11.8")])
def test_nothing_is_said_where_that_is_not_known(pretend, build):
    version, built_for = build
    pretend((9, 0), version=version, built_for=built_for)
    assert gpu.compiled_for() is None
    assert choose_device("auto") == "gpu:0"


# --- driver and libraries ----------------------------------------------------------------


def test_a_driver_too_old_is_told(pretend, monkeypatch):
    old = gpu.Driver("470.57.02", (11, 4))
    pretend(version="3.3.1", built_for="12.6", driver=old)

    def insufficient():
        raise OSError("(External) CUDA error(35), CUDA driver version is insufficient")

    monkeypatch.setattr(paddle.device.cuda, "device_count", insufficient)
    for device in ("auto", "gpu"):
        line = refusal(device)
        assert "the NVIDIA driver is too old (470.57.02, for CUDA up to 11.4)" in line
        assert "built for CUDA 12.6; install driver 525 or newer" in line
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # no GPU is wanted
    with pytest.warns(UserWarning, match="leaves it no GPU"):
        assert choose_device("auto") == "cpu"


def test_an_older_driver_of_the_same_major_version_will_do(pretend):
    pretend((8, 0), driver=gpu.Driver("450.119.04", (11, 0)))
    assert choose_device("auto") == "gpu:0"


def test_libraries_that_are_not_found_are_told(pretend, monkeypatch):
    pretend((8, 0))
    monkeypatch.setattr(cuda, "missing", lambda: list(cuda.LIBRARIES[:3]))
    assert refusal("auto") == (
        "training.device: libcublas.so.11, libcublasLt.so.11, libcudnn.so.8 not found, which this "
        "Paddle needs on a GPU; pip install nvidia-cublas-cu11 nvidia-cudnn-cu11 "
        "(resnet-fit[gpu] has them), or use --device cpu"
    )
    pretend((8, 0), version="3.3.1", archs=[80])
    monkeypatch.setattr(cuda, "missing", lambda: pytest.fail("Paddle 3 has its own"))
    assert choose_device("auto") == "gpu:0"


def test_without_a_driver_auto_is_the_cpu_and_says_so(pretend):
    pretend(driver=None)
    with pytest.warns(UserWarning, match="GPU build, but no NVIDIA driver is here") as told:
        assert choose_device("auto") == "cpu"
    assert len(told) == 1
    assert "Paddle finds 0 GPUs here: no NVIDIA driver is here" in refusal("gpu")


def test_the_cpu_build_says_nothing_of_gpus():
    if paddle.is_compiled_with_cuda():
        pytest.skip("this is a GPU build")
    assert gpu.count() == 0
    assert (gpu.absence(), gpu.driver_problem()) == (None, None)
    assert choose_device("auto") == "cpu"


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 2023\n"
            "GCC version:  gcc version 12.3.0 (Ubuntu 12.3.0-1ubuntu1~22.04)\n",
            "535.104.05",
        ),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.15  Release Build\n",
            "550.54.15",
        ),
    ],
)
def test_the_drivers_version(monkeypatch, tmp_path, text, version):
    (tmp_path / "version").write_text(text)
    monkeypatch.setattr(gpu, "DRIVERS_FILE", tmp_path / "version")
    assert gpu._driver_version() == version


def test_the_drivers_cuda_is_asked_of_the_driver(tmp_path):
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs a C compiler")
    for soname, code in {
        "libcuda.so.1": "int cuDriverGetVersion(int *v) { *v = 12040; return 0; }",
        "libnvidia-ml.so.1": "#include <string.h>\nint nvmlInit_v2(void) { return 0; }\n"
        'int nvmlSystemGetDriverVersion(char *v, unsigned n) { strncpy(v, "550.1", n); return 0; }',
    }.items():
        command = [compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", str(tmp_path / soname)]
        subprocess.run(command, input=code, text=True, check=True)
    program = (
        "from pathlib import Path\n"
        "from resnet_fit import gpu\n"
        "gpu.DRIVERS_FILE = Path('none')\n"
        "print(gpu.driver())\n"
    )
    variables = {"LD_LIBRARY_PATH": str(tmp_path), "PYTHONPATH": str(SOURCE)}
    process = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | variables, capture_output=True, text=True
    )
    assert process.stdout == "550.1, for CUDA up to 12.4\n"


@pytest.mark.parametrize(
    ("number", "version"),
    [(8600, "8.6.0"), (8906, "8.9.6"), (91002, "9.10.2"), (-1, None), (None, None)],
)
def test_cudnns_version(monkeypatch, number, version):
    monkeypatch.setattr(paddle.device, "get_cudnn_version", lambda: number)
    assert gpu.cudnn() == version


# --- what commands and runs say -----------------------------------------------------------


def test_a_run_does_not_start_on_a_card_without_code(pretend, repository, tmp_path, capsys):
    pretend((9, 0))
    config = repository / "configs/resnet18_digits.yaml"
    output = tmp_path / "runs"
    assert main(["--config", str(config), "--output", str(output)]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "crowd" not in line]
    assert len(errors) == 1
    assert errors[0].startswith("resnet-fit: training.device: Paddle 2.6.2 has no machine code")
    assert not output.exists() or not list(output.iterdir())


def test_a_run_says_what_it_runs_on(pretend, monkeypatch, tiny, tmp_path, capsys):
    pretend((8, 9))
    # The arithmetic stays on the CPU, of whatever build this is.
    monkeypatch.setattr(experiment, "choose_device", lambda _: "gpu:0")
    monkeypatch.setattr(cuda, "needed", lambda: True)
    monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: False)
    monkeypatch.setattr(paddle.device, "get_cudnn_version", lambda: 8906)
    run = fit(parse_config(tiny, ["training.epochs=1"]), tmp_path, "run")
    assert (
        "gpu:0: NVIDIA Pretended 0, compute capability 8.9; driver 535.104.05; Paddle for CUDA "
        "11.8; cuDNN 8.9.6" in capsys.readouterr().out
    )
    environment = json.loads((run.folder / "environment.json").read_text())
    assert (environment["device"], environment["gpu"]) == ("gpu:0", "NVIDIA Pretended 0")
    details = environment["gpu_details"]
    assert (details["capability"], details["driver_cuda"]) == ("8.9", "12.2")
    assert set(details["libraries"]) == {library.file for library in cuda.LIBRARIES}


def test_on_a_cpu_there_are_no_details():
    assert describe("cpu", "paddle")["gpu_details"] is None


def test_doctor_on_a_card_without_code(pretend, tmp_path):
    pretend((9, 0), (8, 9), (5, 2))
    found = doctor.examine(tmp_path)
    (problem,) = found.problems
    assert "no machine code for gpu:0" in problem
    assert [warning for warning in found.warnings if "no machine code for gpu:2" in warning]
    assert found.machine["GPUs"][1] == "NVIDIA Pretended 1, compute capability 8.9"
    assert found.machine["with code for capabilities"] == "6.1, 7.0, 7.5, 8.0, 8.6"
    assert found.machine["NVIDIA driver"] == "535.104.05, for CUDA up to 12.2"
    assert {library.file for library in cuda.LIBRARIES} <= set(found.machine)


def test_doctor_without_a_gpu(pretend, tmp_path):
    pretend(driver=None)
    found = doctor.examine(tmp_path)
    assert found.problems == []
    assert [w for w in found.warnings if "no NVIDIA driver is here" in w]
    assert found.machine["device and backend by auto"].startswith("cpu")


def test_doctor_with_a_driver_too_old(pretend, tmp_path):
    pretend(version="3.3.1", built_for="12.6", driver=gpu.Driver("470.57.02", (11, 4)))
    (problem,) = doctor.examine(tmp_path).problems
    assert problem.startswith("the NVIDIA driver is too old (470.57.02")
