"""The options of an export, and their check, without importing Paddle."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal, get_args

from resnet_fit.errors import UserError, check_choice

Format = Literal["onnx", "paddle"]
Input = Literal["uint8", "float32"]
# Packages that write, run and quantise ONNX files.
ONNX_PACKAGES = ("onnx", "onnxruntime", "paddle2onnx")
INT8_PACKAGES = ("ml_dtypes",)


def check_request(format: str, input: str, int8: bool) -> None:
    """Check the options of an export, before any file is opened.

    Raises:
        UserError: no such format or input, or a package is missing.
    """
    check_choice("format", format, get_args(Format))
    check_choice("input", input, get_args(Input))
    if int8 and format != "onnx":
        raise UserError("int8: only ONNX files are quantised; use --format onnx")
    needed = (ONNX_PACKAGES if format == "onnx" else ()) + (INT8_PACKAGES if int8 else ())
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise UserError(
            f"export to {format}: {', '.join(missing)} not installed: "
            "pip install 'resnet-fit[onnx]'"
        )
