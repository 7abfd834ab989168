"""The safetensors format: a JSON header, then the bytes of every tensor, nothing to execute.

Layout: 8 bytes (little-endian) length of the header; the header, name -> dtype, shape and the
offsets of its bytes; the bytes. Read here with numpy alone.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np

from resnet_fit.errors import UserError

DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "|i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "|u1",
    "BOOL": "|b1",
}


def is_safetensors(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins with the length of a header that fits into it, and a JSON object.

    By its first byte alone it may look like a pickle: one file in 32 has a header of such a length.
    """
    with open(path, "rb") as stream:
        start = stream.read(9)
    header_end = 8 + int.from_bytes(start[:8], "little")
    return start[8:] == b"{" and header_end <= os.path.getsize(path)


def read_safetensors(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Return the tensors by name: read-only arrays, bfloat16 widened to float32.

    Raises:
        UserError: a tensor is of a type that numpy does not have.
        Exception: of any kind, where the file is cut short or contradicts itself.
    """
    content = Path(path).read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    if len(content) < start:
        raise ValueError("the header is cut short")
    header = json.loads(content[8:start])
    header.pop("__metadata__", None)  # texts, no tensor
    data = memoryview(content)[start:]
    return {name: _decode(data, name, **entry) for name, entry in header.items()}


def widen_bfloat16(bits: np.ndarray) -> np.ndarray:
    """float32 values of bfloat16 ``bits`` (uint16): numpy has no such type of its own."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _decode(
    data: memoryview, name: str, dtype: str, shape: list[int], data_offsets: list[int]
) -> np.ndarray:
    if dtype != "BF16" and dtype not in DTYPES:
        raise UserError(f"holds '{name}' of type {dtype}, which numpy does not have.")
    begin, end = data_offsets
    element = np.dtype("<u2" if dtype == "BF16" else DTYPES[dtype])
    if not 0 <= begin <= end <= len(data) or end - begin != math.prod(shape) * element.itemsize:
        raise ValueError(f"the bytes of '{name}' are not there")
    array = np.frombuffer(data[begin:end], element).reshape(shape)
    return widen_bfloat16(array) if dtype == "BF16" else array
