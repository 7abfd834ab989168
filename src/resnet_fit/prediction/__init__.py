"""Prediction of image classes, by a run's network or by an ONNX file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnet_fit.lazy import exports

if TYPE_CHECKING:
    from resnet_fit.prediction.onnx_model import OnnxModel
    from resnet_fit.prediction.run_model import RunModel

__all__ = ["OnnxModel", "RunModel"]

__getattr__ = exports(__name__, {"onnx_model": ("OnnxModel",), "run_model": ("RunModel",)})
