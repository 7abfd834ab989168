"""The CUDA libraries that Paddle 2.6 for GPUs opens: found, and made known to Paddle.

PyPI's ``paddlepaddle-gpu`` 2.6.2 is built for CUDA 11.8 and brings none of its libraries. It opens
each at its first use, by a name without a version (``libcudnn.so``): in a folder that only flags of
its C++ code tell, else where the dynamic loader looks. NVIDIA's packages, which the extra ``gpu``
installs, lie where the loader does not look, and name their files with versions only
(``libcudnn.so.8``). So the names that Paddle asks for are made links in a folder of the user's
cache, and Paddle's flags are set to that folder.

A library of the right version that the loader finds by itself is taken first: in that way
``LD_LIBRARY_PATH`` and a system's own CUDA have priority. One of another version, which the bare
name could also lead to, is not taken while a right one is here.

Paddle 3 for GPUs loads the libraries that its wheel depends on by itself; nothing here touches it.
"""

from __future__ import annotations

import atexit
import ctypes
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from resnet_fit.home import user_cache


class Library(NamedTuple):
    """A library that Paddle opens.

    Attributes:
        name: what Paddle asks for.
        file: the file of the version that Paddle was built for, which is its soname too.
        package: where NVIDIA's packages have it, a folder of ``nvidia``.
        essential: whether the training of any network needs it.
    """

    name: str
    file: str
    package: str
    essential: bool = False

    @property
    def distribution(self) -> str:
        """The name of NVIDIA's package for pip."""
        return f"nvidia-{self.package.replace('_', '-')}-cu11"


# Those that `phi::dynload` of Paddle 2.6.2 opens, without nvJPEG, TensorRT and cuSPARSELt, which
# nothing of a training uses. The CUDA runtime is linked into Paddle.
LIBRARIES = (
    Library("libcublas.so", "libcublas.so.11", "cublas", True),
    Library("libcublasLt.so", "libcublasLt.so.11", "cublas", True),
    Library("libcudnn.so", "libcudnn.so.8", "cudnn", True),
    Library("libcufft.so", "libcufft.so.10", "cufft"),
    Library("libcurand.so", "libcurand.so.10", "curand"),
    Library("libcusolver.so", "libcusolver.so.11", "cusolver"),
    Library("libcusparse.so", "libcusparse.so.11", "cusparse"),
    Library("libnccl.so", "libnccl.so.2", "nccl"),  # several GPUs
    Library("libnvrtc.so", "libnvrtc.so.11.2", "cuda_nvrtc"),  # cuDNN and cuBLAS open it too
    Library("libcupti.so", "libcupti.so.11.8", "cuda_cupti"),  # the profiler
    Library("libnvToolsExt.so", "libnvToolsExt.so.1", "nvtx"),
)

# Paddle's flags for the folders of these libraries; it reads none of them from the environment.
FLAGS = ("cuda_dir", "cudnn_dir", "nccl_dir", "cupti_dir")
# paddle::flags::ParseCommandLineFlags(int*, char***)
_SET_FLAGS = "_ZN6paddle5flags21ParseCommandLineFlagsEPiPPPc"


@dataclass(frozen=True)
class Found:
    """Where a library is; ``path`` is None if it is nowhere.

    ``packaged`` is whether it is from NVIDIA's package, and not from where the loader looks.
    """

    library: Library
    path: Path | None = None
    packaged: bool = False

    @property
    def origin(self) -> str:
        """In words: NVIDIA's package with its version, or the file."""
        if self.path is None:
            return "not found"
        if self.packaged:
            with suppress(PackageNotFoundError):
                return f"{self.library.distribution} {version(self.library.distribution)}"
        return str(self.path)


def needed() -> bool:
    """Whether the installed Paddle is one that opens these libraries by the names above."""
    import paddle

    return (
        paddle.is_compiled_with_cuda()
        and paddle.version.full_version.startswith("2.6.")
        and paddle.version.cuda() == "11.8"
    )


@cache
def find() -> tuple[Found, ...]:
    """Look for each library, in the order of `LIBRARIES`. Loads those that the loader finds."""
    return tuple(map(_find, LIBRARIES))


def missing() -> list[Library]:
    """Essential libraries that cannot be opened, neither where they were found nor by name."""
    return [
        found.library
        for found in find()
        if found.library.essential and not opens(found.path or found.library.name)
    ]


def opens(library: Path | str) -> bool:
    """Whether the dynamic loader can open a library, by its path or its name."""
    try:
        ctypes.CDLL(str(library))
    except OSError:
        return False
    return True


def provide() -> None:
    """Let Paddle find these libraries, if it is one that does not by itself.

    Call it after the import of Paddle and before its first operation on a GPU.
    """
    found = [f for f in find() if f.path] if needed() else []
    if not found:
        return
    folder = _folder_of(_links(found))
    if any(f.packaged for f in found) and not all(f.packaged for f in found):
        # They open each other by their files' names, and lie in several folders.
        # A library that is loaded already is found wherever it lies.
        for one in found:
            opens(folder / one.library.name)
    _set_flags(folder)


def _find(library: Library) -> Found:
    path = _by_loader(library.file)
    if path is not None:
        return Found(library, path)
    for folder in sys.path:
        file = Path(folder, "nvidia", library.package, "lib", library.file)
        if file.is_file():
            return Found(library, file.absolute(), packaged=True)
    return Found(library)


_RTLD_DI_LINKMAP = 2


class _LinkMap(ctypes.Structure):
    """The start of glibc's ``struct link_map``."""

    _fields_ = (("l_addr", ctypes.c_void_p), ("l_name", ctypes.c_char_p))


def _by_loader(file: str) -> Path | None:
    """The path of a library that the dynamic loader finds by itself, or has loaded already."""
    try:
        library = ctypes.CDLL(file)
    except OSError:
        return None
    handle, entry = ctypes.c_void_p(library._handle), ctypes.POINTER(_LinkMap)()
    try:
        failed = ctypes.CDLL(None).dlinfo(handle, _RTLD_DI_LINKMAP, ctypes.byref(entry))
    except AttributeError:  # not glibc
        return None
    return None if failed else Path(os.fsdecode(entry.contents.l_name))


def _links(found: list[Found]) -> dict[str, Path]:
    """Names and targets: what Paddle asks for, and all files of NVIDIA's packages.

    A library looks for those that it opens in the folder that it was opened from, which is that of
    the links.
    """
    links = {}
    for one in found:
        assert one.path is not None
        if one.packaged:
            links.update({file.name: file for file in one.path.parent.glob("*.so*")})
        links[one.library.name] = one.path
    return links


def _folder_of(links: Mapping[str, Path]) -> Path:
    """A folder with these links, in the user's cache; where that is impossible a temporary one."""
    text = "\n".join(f"{name} {target}" for name, target in sorted(links.items()))
    key = hashlib.sha256(os.fsencode(text)).hexdigest()[:16]
    cache_folder = user_cache()
    if cache_folder is not None:
        place = cache_folder.absolute() / "cuda" / key
        with suppress(OSError):
            if not place.is_dir():
                _make(place, links)
            return place
    place = Path(tempfile.mkdtemp(prefix="resnet-fit-cuda-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    _fill(place, links)
    return place


def _make(place: Path, links: Mapping[str, Path]) -> None:
    """Make the folder whole or not at all: other processes may do the same at this moment."""
    place.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=".part", dir=place.parent))
    try:
        _fill(part, links)
        os.rename(part, place)
    except OSError:
        shutil.rmtree(part, ignore_errors=True)
        if not place.is_dir():
            raise


def _fill(folder: Path, links: Mapping[str, Path]) -> None:
    for name, target in links.items():
        (folder / name).symlink_to(target)


def _set_flags(folder: Path) -> None:
    """Set Paddle's flags by its own reader of command lines; Python has no other way to them."""
    import paddle

    library = ctypes.CDLL(str(Path(paddle.__file__).parent / "libs" / "libphi.so"))
    words = [b"paddle", *(b"--%s=%s" % (flag.encode(), os.fsencode(folder)) for flag in FLAGS)]
    count = ctypes.c_int(len(words))
    start = ctypes.cast((ctypes.c_char_p * (len(words) + 1))(*words), ctypes.c_void_p)
    getattr(library, _SET_FLAGS)(ctypes.byref(count), ctypes.byref(start))
