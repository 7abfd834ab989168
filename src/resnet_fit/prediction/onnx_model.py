"""A network in an ONNX file, run by onnxruntime; Paddle is not needed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from resnet_fit.data.augment.operation import rounded
from resnet_fit.data.preparing import Preparation
from resnet_fit.errors import RunFailed, UserError
from resnet_fit.export.metadata import ONNX_KEY, Metadata
from resnet_fit.files import readable, require_existing
from resnet_fit.home import expand
from resnet_fit.machine import usable_cores


class OnnxModel:
    """A network that ``resnet-fit export`` wrote, on the CPU.

    Attributes:
        classes: their names, in the order of the probabilities.
        metadata: the file's metadata.

    Raises:
        UserError: no such file, not an ONNX file, or a file of another program.
        RunFailed: onnxruntime is not installed.
    """

    def __init__(self, file: str | os.PathLike[str]) -> None:
        self.file = expand(file)
        require_existing(self.file)
        self._session = _open(self.file)
        self.metadata = _metadata(self._session, self.file)
        self.classes = self.metadata.classes
        self._preparation = _preparation(self.metadata, self.file)
        self._input = self._session.get_inputs()[0]
        size = self._input.shape[0]
        self._batch = size if isinstance(size, int) else None  # a name means any batch size

    def prepare(self, path: str | os.PathLike[str]) -> np.ndarray:
        """Read an image file as input of the graph, without the batch dimension: see `Metadata`.

        Raises:
            UserError: it cannot be read, or has another size than the network's input.
        """
        image = self._preparation(path)
        return rounded(image).transpose(1, 2, 0) if self.metadata.input == "uint8" else image

    def compute(self, images: np.ndarray) -> np.ndarray:
        """Prepared images to probabilities ``[N, classes]``, float32.

        Raises:
            RunFailed: onnxruntime fails, or the output has another shape.
        """
        size = self._batch or len(images)
        pieces = [self._run(images[i : i + size], size) for i in range(0, len(images), size)]
        return np.concatenate(pieces)

    def probabilities(self, paths: Sequence[str | os.PathLike[str]]) -> np.ndarray:
        """The probability of each class for each image file: float32 ``[N, classes]``.

        Raises:
            UserError: see `prepare`.
        """
        if not len(paths):
            return np.zeros((0, len(self.classes)), np.float32)
        return np.concatenate([self.compute(self.prepare(path)[None]) for path in paths])

    def classify(self, paths: Sequence[str | os.PathLike[str]]) -> list[str]:
        """The name of the most probable class of each image file; see `probabilities`."""
        return [self.classes[i] for i in self.probabilities(paths).argmax(axis=1).tolist()]

    def _run(self, images: np.ndarray, size: int) -> np.ndarray:
        """Run one batch, padded with zeros to ``size`` images."""
        count = len(images)
        if count < size:
            images = np.concatenate(
                [images, np.zeros((size - count, *images.shape[1:]), images.dtype)]
            )
        try:
            result = self._session.run(None, {self._input.name: images})[0]
        except Exception as error:  # onnxruntime raises many types
            raise RunFailed(f"{self.file}: onnxruntime failed ({_one_line(error)})") from error
        expected = (size, len(self.classes))
        if result.shape != expected:
            raise RunFailed(
                f"{self.file}: gave an output {list(result.shape)}, expected {list(expected)}: a "
                "probability for each class"
            )
        return result[:count]


def _open(file: os.PathLike[str]) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise RunFailed(
            f"{os.fspath(file)}: needs onnxruntime ({_one_line(error)}): "
            "pip install 'resnet-fit[onnx]'"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = usable_cores()  # its default ignores a container's CPU limit
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(
            os.fspath(file), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime raises many types
        raise UserError(
            f"{os.fspath(file)}: not an ONNX file that onnxruntime can open ({_one_line(error)})"
        ) from None


def _metadata(session: Any, file: os.PathLike[str]) -> Metadata:
    text = session.get_modelmeta().custom_metadata_map.get(ONNX_KEY)
    if text is None:
        raise UserError(
            f"{os.fspath(file)}: not written by resnet-fit export: it has no metadata on classes "
            "and preprocessing"
        )
    try:
        return Metadata.from_json(text)
    except ValueError as error:
        raise UserError(f"{os.fspath(file)}: {error}") from None


def _preparation(metadata: Metadata, file: os.PathLike[str]) -> Preparation:
    try:
        return metadata.preparation()
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{os.fspath(file)}: {ONNX_KEY}.{error}") from None


def _one_line(error: Exception) -> str:
    return readable(" ".join(str(error).split()))
