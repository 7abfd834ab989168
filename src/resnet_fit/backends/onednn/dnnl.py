"""oneDNN, which comes inside Paddle's wheel, through its C interface (version 3).

Only what this package needs: memory descriptors, and primitives to execute on addresses. Names and
numbers are those of ``dnnl_types.h``.

Any number of Python threads may use it. What they share (a primitive with the addresses it is to
work on, memory for what is needed only within a call) is used by one at a time, under `LOCK`; each
operation has all cores anyway.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ctypes import byref, c_char_p, c_float, c_int, c_int64, c_size_t, c_void_p
from pathlib import Path
from threading import RLock
from typing import Any

import paddle

from resnet_fit.backends.threads import computing_with, threads
from resnet_fit.errors import UserError

FLOAT32, BFLOAT16 = 3, 2
FORWARD_TRAINING, FORWARD_INFERENCE, BACKWARD = 64, 96, 128
CONVOLUTION_DIRECT, BINARY_ADD = 1, 0x1FFF0
POOLING_MAX, POOLING_AVERAGE = 0x1FF, 0x3FF
RELU, RELU_BY_OUTPUT = 0x20, 0x100
USE_GLOBAL_STATISTICS, USE_SCALE, USE_SHIFT, FUSE_RELU = 1, 2, 4, 8
ANY_LAYOUT = 1

# What an address of a primitive's arguments is for.
SOURCE, SECOND_SOURCE, DESTINATION, WEIGHTS, BIAS = 1, 2, 17, 33, 41
MEAN, VARIANCE, SCALE, SHIFT, WORKSPACE, SCRATCHPAD = 49, 50, 51, 52, 64, 80
DIFF_SOURCE, DIFF_DESTINATION, DIFF_WEIGHTS, DIFF_BIAS = 129, 145, 161, 169
DIFF_SCALE, DIFF_SHIFT = 255, 256
# The same, as queries to a primitive's description.
QUERY_WEIGHTS, QUERY_DIFF_WEIGHTS, QUERY_WORKSPACE, QUERY_SCRATCHPAD = 131, 132, 135, 136
QUERY_NAME = 8


class Unavailable(ImportError):
    """This installation of Paddle has no oneDNN that can be used; the message says why."""


class _Version(ctypes.Structure):
    _fields_ = (("major", c_int), ("minor", c_int), ("patch", c_int))


class _Argument(ctypes.Structure):
    _fields_ = (("role", c_int), ("memory", c_void_p))


def _load() -> ctypes.CDLL:
    file = Path(paddle.__file__).parent / "libs" / "libdnnl.so.3"
    if not file.is_file():
        raise Unavailable(f"there is no {file.name} (oneDNN 3) in the installed Paddle")
    try:
        loaded = ctypes.CDLL(str(file))
    except OSError as error:
        raise Unavailable(f"oneDNN does not load: {error}") from None
    loaded.dnnl_version.restype = ctypes.POINTER(_Version)
    loaded.dnnl_memory_desc_get_size.restype = c_size_t
    loaded.dnnl_memory_desc_get_size.argtypes = [c_void_p]
    loaded.dnnl_primitive_desc_query_md.restype = c_void_p
    loaded.dnnl_primitive_desc_query_md.argtypes = [c_void_p, c_int, c_int]
    loaded.dnnl_memory_desc_clone.argtypes = [c_void_p, c_void_p]
    loaded.dnnl_memory_set_data_handle.argtypes = [c_void_p, c_void_p]
    loaded.dnnl_primitive_execute.argtypes = [c_void_p, c_void_p, c_int, c_void_p]
    if loaded.dnnl_version().contents.major != 3:
        raise Unavailable("the oneDNN in the installed Paddle is not version 3")
    try:
        threads()
    except UserError as error:
        raise Unavailable(str(error)) from None
    return loaded


def _check(status: int, what: str) -> None:
    if status:
        raise RuntimeError(f"oneDNN could not {what} (status {status})")


_dnnl = _load()
_engine, _stream = c_void_p(), c_void_p()
_check(_dnnl.dnnl_engine_create(byref(_engine), 1, c_size_t(0)), "start on this processor")
_check(_dnnl.dnnl_stream_create(byref(_stream), _engine, 1), "open a stream")

# A Python thread holds it while it uses what all threads share.
LOCK = RLock()


def version() -> str:
    found = _dnnl.dnnl_version().contents
    return f"{found.major}.{found.minor}.{found.patch}"


def _attributes(relu: bool) -> c_void_p:
    """Scratch memory is handed in by the caller; ``relu`` is applied to the result."""
    attributes = c_void_p()
    _check(_dnnl.dnnl_primitive_attr_create(byref(attributes)), "make attributes")
    _check(_dnnl.dnnl_primitive_attr_set_scratchpad_mode(attributes, 1), "set scratch memory")
    if relu:
        after = c_void_p()
        _check(_dnnl.dnnl_post_ops_create(byref(after)), "make post-ops")
        zero = c_float(0)
        _check(_dnnl.dnnl_post_ops_append_eltwise(after, RELU, zero, zero), "append a ReLU")
        _check(_dnnl.dnnl_primitive_attr_set_post_ops(attributes, after), "set post-ops")
    return attributes


PLAIN, THEN_RELU = _attributes(relu=False), _attributes(relu=True)


class Handle(c_void_p):
    """A pointer to one of oneDNN's objects, which is destroyed with it.

    Args:
        kind: the middle of the name of the function that destroys it.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self._destroy = getattr(_dnnl, f"dnnl_{kind}_destroy")

    def __del__(self) -> None:
        if self.value is not None:
            self._destroy(self)


@contextmanager
def _no_cache() -> Iterator[None]:
    """Lets oneDNN, which has a cache of its own, keep nothing that is dropped here."""
    capacity = c_int()
    _dnnl.dnnl_get_primitive_cache_capacity(byref(capacity))
    _dnnl.dnnl_set_primitive_cache_capacity(0)
    try:
        yield
    finally:
        _dnnl.dnnl_set_primitive_cache_capacity(capacity)


def dims(*values: int) -> Any:
    return (c_int64 * 12)(*values)


def layout(shape: Sequence[int], dtype: int, strides: Sequence[int] | None = None) -> Handle:
    """A memory descriptor; without strides, the layout is oneDNN's to choose."""
    descriptor = Handle("memory_desc")
    sizes = (byref(descriptor), len(shape), dims(*shape), dtype)
    if strides is None:
        status = _dnnl.dnnl_memory_desc_create_with_tag(*sizes, ANY_LAYOUT)
    else:
        status = _dnnl.dnnl_memory_desc_create_with_strides(*sizes, dims(*strides))
    _check(status, "describe memory")
    return descriptor


def contiguous(shape: Sequence[int], dtype: int = FLOAT32) -> Handle:
    """A descriptor of plain row-major memory."""
    strides = [1]
    for size in reversed(shape[1:]):
        strides.insert(0, strides[0] * size)
    return layout(shape, dtype, strides)


def channels_last(shape: Sequence[int], dtype: int, padded: int | None = None) -> Handle:
    """A descriptor of images ``[N, C, H, W]`` that lie in memory as ``[N, H, W, C]``.

    ``padded`` is the number of channels that each pixel takes in memory, where these are more.
    """
    _, c, h, w = shape
    padded = padded or c
    return layout(shape, dtype, (h * w * padded, 1, w * padded, padded))


def size(descriptor: c_void_p) -> int:
    """Bytes."""
    return _dnnl.dnnl_memory_desc_get_size(descriptor)


class Buffer:
    """Memory that grows and never shrinks, on huge pages where the system grants them.

    One serves a purpose in all layers, since its content lives only within one call. Who uses it
    holds `LOCK`.
    """

    _HUGE = 1 << 21

    def __init__(self) -> None:
        self._size = 0
        self._memory: mmap.mmap | None = None
        self._address = 0

    def at_least(self, size: int) -> int:
        """The address of at least ``size`` bytes."""
        if size > self._size:
            self._memory = mmap.mmap(-1, size + self._HUGE)
            if hasattr(mmap, "MADV_HUGEPAGE"):
                self._memory.madvise(mmap.MADV_HUGEPAGE)
            start = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
            self._address = -(-start // self._HUGE) * self._HUGE
            self._size = size
        return self._address


_scratch = Buffer()


class Description:
    """What oneDNN chose for an operation: the algorithm and the layouts it wants.

    Args:
        operation: the middle of a name of the C interface.
        arguments: what that function takes between `_engine` and the end.
        prefer: the first implementation whose name this accepts is taken; without one, the first
            that oneDNN offers.
    """

    def __init__(
        self, operation: str, *arguments: Any, prefer: Callable[[str], bool] | None = None
    ) -> None:
        self.handle = Handle("primitive_desc")
        create = getattr(_dnnl, f"dnnl_{operation}_primitive_desc_create")
        if operation == "reorder":
            source, destination, attributes = arguments
            arguments = (source, _engine, destination, _engine, attributes)
        else:
            arguments = (_engine, *arguments)
        _check(create(byref(self.handle), *arguments), f"do {operation}")
        while prefer and not prefer(self.implementation):
            if _dnnl.dnnl_primitive_desc_next_impl(self.handle):  # that was the last one
                self.handle = Handle("primitive_desc")
                _check(create(byref(self.handle), *arguments), f"do {operation}")
                break

    @property
    def implementation(self) -> str:
        """Its name, as ``brg_conv_fwd:avx512_core``."""
        name = c_char_p()
        _dnnl.dnnl_primitive_desc_query(self.handle, QUERY_NAME, 0, byref(name))
        return (name.value or b"").decode()

    def layout(self, query: int) -> Handle:
        """The descriptor of one of its arguments; one without a pointer where there is none."""
        descriptor = Handle("memory_desc")
        found = _dnnl.dnnl_primitive_desc_query_md(self.handle, query, 0)
        if found is not None:  # a part of the description, which may be gone before its user
            _check(_dnnl.dnnl_memory_desc_clone(byref(descriptor), found), "describe memory")
        return descriptor


class Primitive:
    """An operation ready to run. Call it with one address for each of its ``arguments``.

    It is made for the number of threads that there is when it is made, and always runs with that.

    Args:
        description: what to run.
        arguments: the role and the descriptor of each.
    """

    def __init__(self, description: Description, arguments: Sequence[tuple[int, c_void_p]]) -> None:
        self._handle = Handle("primitive")
        self._threads = threads()
        with LOCK, _no_cache():
            status = _dnnl.dnnl_primitive_create(byref(self._handle), description.handle)
        _check(status, "compile")
        scratchpad = description.layout(QUERY_SCRATCHPAD)
        self._scratch_size = size(scratchpad)
        arguments = [*arguments, (SCRATCHPAD, scratchpad)]
        self._arguments = (_Argument * len(arguments))()
        self._memories: list[Handle] = []
        for slot, (role, descriptor) in zip(self._arguments, arguments, strict=True):
            memory = Handle("memory")
            _check(_dnnl.dnnl_memory_create(byref(memory), descriptor, _engine, None), "use memory")
            slot.role, slot.memory = role, memory.value
            self._memories.append(memory)
        self._address = ctypes.addressof(self._arguments)

    def __call__(self, *addresses: int) -> None:
        if threads() == self._threads:
            self._run(addresses)
        else:
            with computing_with(self._threads):
                self._run(addresses)

    def _run(self, addresses: tuple[int, ...]) -> None:
        with LOCK:
            scratch = _scratch.at_least(self._scratch_size) if self._scratch_size else None
            for memory, address in zip(self._memories, (*addresses, scratch), strict=True):
                _dnnl.dnnl_memory_set_data_handle(memory, address)
            status = _dnnl.dnnl_primitive_execute(
                self._handle, _stream, len(self._memories), self._address
            )
        _check(status, "run")


def reorder(source: c_void_p, destination: c_void_p) -> Primitive:
    """A copy that changes layout or type."""
    description = Description("reorder", source, destination, PLAIN)
    return Primitive(description, [(SOURCE, source), (DESTINATION, destination)])
