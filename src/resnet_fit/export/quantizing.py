"""Static int8 quantisation of an ONNX file by onnxruntime.

Weights have a scale for each output channel and use seven of their eight bits, so that nothing
overflows on a processor without 8-bit dot products (VNNI). It runs in a child process, because it
logs advice that is not for users.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from resnet_fit.errors import RunFailed
from resnet_fit.export.children import call

# Other operations take little time, and those at the input and output matter for the accuracy.
QUANTIZED = ("Conv", "Gemm", "MatMul", "Add", "Relu", "MaxPool", "AveragePool", "Concat")


def quantize(file: Path, images: np.ndarray, target: Path) -> None:
    """Write a quantised form of an ONNX file.

    Args:
        images: input for calibration, which measures the ranges of activations.

    Raises:
        RunFailed: onnxruntime failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        calibration = Path(folder, "images.npy")
        np.save(calibration, images)
        try:
            call(__name__, file, calibration, target)
        except RunFailed as error:
            raise RunFailed(f"onnxruntime cannot quantise this network ({error})") from None


def main(file: str, calibration: str, target: str) -> None:
    """The child process."""
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    given = onnx.load(file)
    (entry,) = given.graph.input
    images = np.load(calibration)

    class Images(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter(np.array_split(images, -(-len(images) // 32)))

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.batches, None)
            return None if batch is None else {entry.name: batch}

    with tempfile.TemporaryDirectory() as folder:
        simplified = Path(folder, "simplified.onnx")  # norms folded into convolutions
        quant_pre_process(file, str(simplified), skip_symbolic_shape=True)
        quantize_static(
            simplified,
            target,
            Images(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            # Seven bits: without VNNI the sum of two products of eight bits overflows 16 bits.
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=list(QUANTIZED),
        )
    made = onnx.load(target)
    onnx.helper.set_model_props(made, {p.key: p.value for p in given.metadata_props})
    onnx.save(made, target)
