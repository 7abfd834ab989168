"""The CUDA libraries of Paddle 2.6 for GPUs: which are taken, and that Paddle's names lead to them.

The libraries here are small ones, compiled for each test, under the names of the real ones. That
Paddle itself opens the real ones is tested where its GPU build is installed (`.ci/gpu-build`).
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from resnet_fit import cuda

SOURCE = Path(__file__).resolve().parents[1] / "src"
COMPILER = shutil.which("cc") or shutil.which("gcc")

needs_compiler = pytest.mark.skipif(
    COMPILER is None or sys.platform != "linux", reason="needs a C compiler and glibc"
)
needs_gpu_build = pytest.mark.skipif(
    not cuda.needed(), reason="needs the GPU build of Paddle 2.6: .ci/gpu-build"
)

# Says where it is from, and opens another library as cuDNN 8 does.
C = """
#include <dlfcn.h>
const char *origin(void) { return "%s"; }
int opens(const char *name) { return dlopen(name, RTLD_NOW) != 0; }
"""

# Takes the folder's name instead of Paddle, and opens what Paddle would.
PROGRAM = """
import ctypes, json, sys
from resnet_fit import cuda
told = []
cuda.needed, cuda._set_flags = lambda: True, told.append
cuda.provide()
found = {f.library.file: (str(f.path), f.packaged) for f in cuda.find() if f.path}
opened, others = {}, {}
for name in sys.argv[1:]:
    library = ctypes.CDLL(str(told[0] / name))
    library.origin.restype = ctypes.c_char_p
    opened[name] = library.origin().decode()
    others[name] = bool(library.opens(b"libcublas.so.11"))
print(json.dumps({"folder": str(told[0]) if told else None, "found": found,
                  "opened": opened, "cublas": others}))
"""


def compile_library(file: Path, origin: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    command = [str(COMPILER), "-shared", "-fPIC", "-x", "c", "-", f"-Wl,-soname,{file.name}"]
    command += ["-Wl,--enable-new-dtags,-rpath,$ORIGIN", "-o", str(file), "-ldl"]
    subprocess.run(command, input=C % origin, text=True, check=True)


@pytest.fixture
def packages(tmp_path):
    """NVIDIA's packages, as pip installs them."""
    site = tmp_path / "site"
    for library in cuda.LIBRARIES[:4]:
        compile_library(site / "nvidia" / library.package / "lib" / library.file, "package")
    return site


@pytest.fixture
def opened(tmp_path, packages):
    """What a new process finds and opens."""

    def call(*names: str, **variables: str) -> dict:
        process = subprocess.run(
            [sys.executable, "-S", "-c", PROGRAM, *names],  # without packages that are installed
            env=os.environ
            | {"PYTHONPATH": f"{packages}{os.pathsep}{SOURCE}"}
            | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
            | variables,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert process.returncode == 0, process.stderr
        return json.loads(process.stdout)

    return call


@needs_compiler
def test_names_without_a_version_lead_to_nvidias_packages(opened, packages, tmp_path):
    result = opened("libcudnn.so", "libcublas.so", "libcublasLt.so", "libcufft.so")
    folder = packages / "nvidia" / "cudnn" / "lib"
    assert result["found"]["libcudnn.so.8"] == [str(folder / "libcudnn.so.8"), True]
    assert "libcurand.so.10" not in result["found"]
    assert set(result["opened"].values()) == {"package"}
    assert Path(result["folder"]).parent == tmp_path / "cache" / "resnet-fit" / "cuda"


@needs_compiler
def test_a_library_finds_those_of_other_packages(opened, packages):
    result = opened("libcudnn.so")  # cuBLAS lies in another folder of NVIDIA's
    assert result["cublas"] == {"libcudnn.so": True}


@needs_compiler
def test_what_the_loader_finds_has_priority(opened, tmp_path):
    compile_library(tmp_path / "own" / "libcudnn.so.8", "own")
    result = opened("libcudnn.so", "libcublas.so", LD_LIBRARY_PATH=str(tmp_path / "own"))
    assert result["found"]["libcudnn.so.8"] == [str(tmp_path / "own" / "libcudnn.so.8"), False]
    assert result["opened"] == {"libcudnn.so": "own", "libcublas.so": "package"}
    assert result["cublas"]["libcudnn.so"]  # though nothing of its own folder leads there


@needs_compiler
def test_another_version_has_not(opened, tmp_path):
    compile_library(tmp_path / "own" / "libcudnn.so.9", "newer")
    (tmp_path / "own" / "libcudnn.so").symlink_to("libcudnn.so.9")
    result = opened("libcudnn.so", LD_LIBRARY_PATH=str(tmp_path / "own"))
    assert result["opened"] == {"libcudnn.so": "package"}


@needs_compiler
def test_links_are_made_once(opened):
    first, second = opened("libcudnn.so"), opened("libcudnn.so")
    assert first == second
    folder = Path(first["folder"])
    assert [f.name for f in folder.parent.iterdir()] == [folder.name]


@needs_compiler
def test_a_cache_that_cannot_be_written_is_done_without(opened, tmp_path):
    (tmp_path / "file").write_text("")
    result = opened("libcudnn.so", XDG_CACHE_HOME=str(tmp_path / "file"))
    assert result["opened"] == {"libcudnn.so": "package"}
    assert not Path(result["folder"]).exists()  # a temporary one, gone with the process


def test_of_two_processes_one_makes_the_links(tmp_path, monkeypatch):
    links = {"libcudnn.so": tmp_path / "libcudnn.so.8"}
    place = tmp_path / "cuda" / "key"
    fill = cuda._fill

    def overtaken(folder, links):
        fill(folder, links)
        if not place.exists():
            place.mkdir(parents=True)
            fill(place, links)

    monkeypatch.setattr(cuda, "_fill", overtaken)
    cuda._make(place, links)
    assert [f.name for f in place.parent.iterdir()] == ["key"]
    assert (place / "libcudnn.so").readlink() == tmp_path / "libcudnn.so.8"


def test_nothing_is_provided_for_another_paddle(monkeypatch):
    monkeypatch.setattr(cuda, "needed", lambda: False)
    monkeypatch.setattr(cuda, "find", lambda: pytest.fail("looked for libraries"))
    cuda.provide()


@pytest.mark.parametrize(
    ("with_cuda", "version", "built", "expected"),
    [
        (True, "2.6.2", "11.8", True),
        (True, "2.6.2", "12.0", False),  # from Paddle's own index
        (True, "3.3.1", "11.8", False),  # which loads its libraries by itself
        (False, "2.6.2", "False", False),
    ],
)
def test_which_paddle_needs_it(monkeypatch, with_cuda, version, built, expected):
    import paddle

    monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: with_cuda)
    monkeypatch.setattr(paddle.version, "full_version", version)
    monkeypatch.setattr(paddle.version, "cuda", lambda: built)
    assert cuda.needed() == expected


def test_the_extra_installs_each_library(repository):
    text = (repository / "pyproject.toml").read_text()
    extra = re.search(r"^gpu = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    assert extra is not None
    named = set(re.findall(r'"(nvidia-[a-z0-9-]+?-cu11)[=>]', extra[1]))
    assert named == {library.distribution for library in cuda.LIBRARIES}


# --- with the GPU build of Paddle 2.6, real libraries, and no GPU ----------------------

# Calls the functions by which Paddle opens its libraries; then looks at what is mapped.
PADDLES = """
import ctypes, os, sys
from resnet_fit.runtime import prepare_environment
prepare_environment()
import paddle
phi = ctypes.CDLL(os.path.join(os.path.dirname(paddle.__file__), "libs", "libphi.so"))
for name in sys.argv[1:]:
    function = phi[f"_ZN3phi7dynload{len(name)}{name}Ev"]
    function.restype = ctypes.c_void_p
    assert function(), name
print(paddle.device.get_cudnn_version())
print(open("/proc/self/maps").read())
"""
FUNCTIONS = {
    "libcublas.so": "GetCublasDsoHandle",
    "libcublasLt.so": "GetCublasLtDsoHandle",
    "libcudnn.so": "GetCUDNNDsoHandle",
    "libcufft.so": "GetCUFFTDsoHandle",
    "libcurand.so": "GetCurandDsoHandle",
    "libcusolver.so": "GetCusolverDsoHandle",
    "libcusparse.so": "GetCusparseDsoHandle",
    "libnccl.so": "GetNCCLDsoHandle",
    "libnvrtc.so": "GetNVRTCDsoHandle",
    "libcupti.so": "GetCUPTIDsoHandle",
    "libnvToolsExt.so": "GetNvtxDsoHandle",
}


@needs_gpu_build
def test_paddle_opens_each_library():
    functions = [FUNCTIONS[library.name] for library in cuda.LIBRARIES]
    process = subprocess.run(
        [sys.executable, "-c", PADDLES, *functions], capture_output=True, text=True, timeout=120
    )
    assert process.returncode == 0, process.stderr
    version, maps = process.stdout.split("\n", 1)
    assert int(version) // 1000 == 8
    for found in cuda.find():
        assert str(found.path) in maps, found


@needs_gpu_build
def test_cudnn_opens_its_own_parts():
    """cuDNN loads the rest of itself at the first use; without a GPU it then says just that."""
    program = (
        "import ctypes\n"
        "from resnet_fit import cuda\n"
        "cuda._set_flags = lambda folder: print(folder)\n"
        "cuda.provide()\n"
    )
    folder = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.strip()
    create = (
        "import ctypes, sys\n"
        "handle = ctypes.c_void_p()\n"
        "cudnn = ctypes.CDLL(sys.argv[1] + '/libcudnn.so')\n"
        "cudnn.cudnnCreate(ctypes.byref(handle))\n"
        "for part in ('ops_infer', 'cnn_infer', 'cnn_train', 'ops_train'):\n"
        '    getattr(cudnn, f\'cudnn{part.title().replace("_", "")}VersionCheck\')()\n'
        "print(open('/proc/self/maps').read())\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", create, folder], capture_output=True, text=True, timeout=120
    )
    assert process.returncode == 0, process.stderr
    for part in ("ops_infer", "cnn_infer", "cnn_train", "ops_train"):
        assert f"libcudnn_{part}.so.8" in process.stdout
    assert "Could not load library" not in process.stderr


@needs_gpu_build
def test_no_library_is_loaded_before_it_is_needed():
    program = (
        "from resnet_fit.runtime import prepare_environment\n"
        "prepare_environment()\n"
        "print(open('/proc/self/maps').read())\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    packaged = [f for f in cuda.find() if f.packaged]
    assert packaged
    assert not [f for f in packaged if str(f.path) in process.stdout]
    assert process.stderr == ""


def test_a_name_that_leads_nowhere_is_missing(monkeypatch):
    nowhere = tuple(cuda.Found(library) for library in cuda.LIBRARIES)
    monkeypatch.setattr(cuda, "find", lambda: nowhere)
    lost = cuda.missing()
    expected = {"libcublas.so.11", "libcublasLt.so.11", "libcudnn.so.8"}
    for name in ("libcublas.so", "libcublasLt.so", "libcudnn.so"):
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        expected = {file for file in expected if not file.startswith(f"{name}.")}
    assert {library.file for library in lost} == expected
