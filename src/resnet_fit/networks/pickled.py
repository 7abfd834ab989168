"""Tensors out of pickles that Paddle and torch wrote, without running what the file asks for.

A pickle is a program that may name any function of any module. Here the few names that plain
tensors need are answered by the functions of ``ADMITTED``, which only describe an array; every
other name is refused before anything is called.
"""

from __future__ import annotations

import math
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from resnet_fit.errors import UserError
from resnet_fit.networks.safetensors import widen_bfloat16

# The first object of a file in torch's format before 1.6.
TORCH_MAGIC = 0x1950A86A20F9469CFC6C
BFLOAT16 = "bfloat16"
# Under which names training programs keep the weights in a file that also holds other things; an
# average of the weights is taken where there are no others.
CONTAINERS = ("model", "state_dict", "model_state_dict", "net", "model_ema", "state_dict_ema")
# Classes of those other things. In their place comes an object that holds nothing.
IGNORED = (("argparse", "Namespace"), ("collections", "Counter"))
STORAGES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": BFLOAT16,
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "|i1",
    "ByteStorage": "|u1",
    "BoolStorage": "|b1",
}


def read_pickle(path: Path) -> dict[str, np.ndarray]:
    """Read a Paddle state dict (``.pdparams``), or one of torch in its format before 1.6.

    Raises:
        UserError: the file asks for more than tensors, or holds something else.
        Exception: of any kind, where the pickle is damaged.
    """
    with path.open("rb") as stream:
        content = _Unpickler(stream).load()
        if isinstance(content, int) and content == TORCH_MAGIC:
            return _read_legacy_torch(stream)
    return _state_dict(content, _paddle_array)


def read_torch_zip(path: Path) -> dict[str, np.ndarray]:
    """Read a state dict that ``torch.save`` wrote (``.pth``, a zip archive since torch 1.6).

    Raises:
        UserError: the file asks for more than tensors, or holds something else.
        Exception: of any kind, where the archive or the pickle in it is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        pickles = [name for name in names if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise UserError("is a zip archive, but not one that torch.save wrote.")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}byteorder" in names:
            _check_byte_order(archive.read(f"{folder}byteorder") == b"little")
        with archive.open(pickles[0]) as stream:
            unpickler = _Unpickler(stream)
            content = unpickler.load()
        buffers = {key: archive.read(f"{folder}data/{key}") for key in unpickler.storages}
    return _state_dict(content, lambda value: _torch_array(value, buffers))


def _read_legacy_torch(stream: BinaryIO) -> dict[str, np.ndarray]:
    """A pickle each of version, system, object and keys of its storages; then the storages."""
    _Unpickler(stream).load()
    _check_byte_order(_Unpickler(stream).load()["little_endian"])
    unpickler = _Unpickler(stream)
    content = unpickler.load()
    buffers = {}
    for key in _Unpickler(stream).load():
        count = int.from_bytes(stream.read(8), "little")
        buffers[key] = stream.read(count * unpickler.storages[key].element.itemsize)
    return _state_dict(content, lambda value: _torch_array(value, buffers))


def _check_byte_order(little_endian: bool) -> None:
    if not little_endian:
        raise UserError("was written on a big-endian machine: save it again on a usual one.")


def _state_dict(
    content: object, to_array: Callable[[object], np.ndarray | None]
) -> dict[str, np.ndarray]:
    if not isinstance(content, dict):
        raise UserError(
            f"holds one {type(content).__name__}: expected a state dict, name to tensor."
        )
    content = _unpacked(content)
    # Paddle's table from structured to global names; the latter mean nothing elsewhere.
    content.pop("StructuredToParameterName@@", None)
    arrays = {}
    for name, value in content.items():
        array = to_array(value)
        if array is None:
            raise UserError(
                f"holds {name!r} of type {type(value).__name__}: expected a state dict, name to "
                "tensor; save that part alone."
            )
        arrays[str(name)] = array
    return arrays


def _unpacked(content: dict[Any, Any]) -> dict[Any, Any]:
    """The state dict in a dictionary that holds it under a usual name, or all of it."""
    found = [name for name in CONTAINERS if content.get(name) and isinstance(content[name], dict)]
    if not found:
        return content
    if len(found) > 1:
        warnings.warn(
            f"the weights file holds {', '.join(map(repr, found))}: takes {found[0]!r}",
            stacklevel=2,
        )
    return content[found[0]]


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: Any) -> None:
        # Bytes that Python 2 pickled come as text, one character each.
        super().__init__(stream, encoding="latin1")
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if (module, name) in IGNORED:
            return type(name, (_Ignored,), {})  # a new one: a pickle can set its attributes
        if (module, name) not in ADMITTED:
            raise UserError(f"asks for {module}.{name}: only plain tensors are read from a pickle.")
        return ADMITTED[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        tag, dtype, key, _, _, *views = pid
        if tag != "storage" or any(view is not None for view in views):
            raise ValueError("a reference to something that is no storage")
        return self.storages.setdefault(key, _Storage(key, dtype))


class _Ignored:
    """Takes whatever a pickle makes an object of."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class _NumpyArray:
    """What numpy's pickles describe: shape, type, order and bytes."""

    value: np.ndarray

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran_order, raw = state
        raw = raw.encode("latin1") if isinstance(raw, str) else raw
        flat = np.frombuffer(raw, dtype.value)
        self.value = flat.reshape(shape, order="F" if fortran_order else "C")


class _NumpyDtype:
    def __init__(self, code: str) -> None:
        if not re.fullmatch("[fiu][1248]|b1", code):
            raise UserError(f"holds an array of type {code!r}: only plain tensors are read.")
        self.value = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.value = self.value.newbyteorder(state[1])


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: str

    @property
    def element(self) -> np.dtype[Any]:
        return np.dtype("<u2" if self.dtype == BFLOAT16 else self.dtype)


@dataclass(frozen=True)
class _TorchTensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def _paddle_array(value: object) -> np.ndarray | None:
    if isinstance(value, tuple) and len(value) == 2:
        value = value[1]  # Since 2.1: (global name, array), where a tensor is no layer's state.
    if not isinstance(value, _NumpyArray):
        return None
    # Paddle hands bfloat16 to numpy as uint16; a network has no other use for that type.
    return widen_bfloat16(value.value) if value.value.dtype == np.uint16 else value.value


def _torch_array(value: object, buffers: Mapping[str, bytes]) -> np.ndarray | None:
    if not isinstance(value, _TorchTensor):
        return None
    element = value.storage.element
    flat = np.frombuffer(buffers[value.storage.key], element)
    numbers = (value.offset, *value.shape, *value.stride)
    if any(number < 0 for number in numbers) or math.prod(value.shape) > flat.size:
        raise ValueError("a tensor is larger than its storage")
    reach = sum((n - 1) * step for n, step in zip(value.shape, value.stride, strict=True))
    if math.prod(value.shape) and value.offset + reach >= flat.size:
        raise ValueError("a tensor reaches beyond its storage")
    array = np.lib.stride_tricks.as_strided(
        flat[value.offset :], value.shape, [step * element.itemsize for step in value.stride]
    )
    return widen_bfloat16(array) if value.storage.dtype == BFLOAT16 else array


def _empty_numpy_array(*_: object) -> _NumpyArray:
    return _NumpyArray()


def _numpy_dtype(code: str, *_: object) -> _NumpyDtype:
    return _NumpyDtype(code)


def _encode(text: str, encoding: str) -> bytes:
    """Bytes, in protocol 2."""
    return text.encode(encoding)


def _torch_tensor(
    storage: _Storage, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], *_: object
) -> _TorchTensor:
    return _TorchTensor(storage, offset, shape, stride)


def _torch_parameter(tensor: _TorchTensor, *_: object) -> _TorchTensor:
    return tensor


# Functions and immutable built-in types only: a pickle can set attributes of what it is given.
ADMITTED: dict[tuple[str, str], Any] = {
    ("builtins", "tuple"): tuple,
    ("collections", "OrderedDict"): OrderedDict,
    ("_codecs", "encode"): _encode,
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): _numpy_dtype,
    ("numpy.core.multiarray", "_reconstruct"): _empty_numpy_array,
    ("numpy._core.multiarray", "_reconstruct"): _empty_numpy_array,
    ("torch._utils", "_rebuild_tensor"): _torch_tensor,  # before torch 0.4
    ("torch._utils", "_rebuild_tensor_v2"): _torch_tensor,
    ("torch._utils", "_rebuild_parameter"): _torch_parameter,
}
