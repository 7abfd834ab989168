"""Runs an exported network by onnxruntime or paddle.inference, in a child process.

A separate process is like a user's program, and paddle.inference prints to standard output.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from resnet_fit.errors import RunFailed
from resnet_fit.export.children import command_of, ending


class Running:
    """A process that runs one exported network.

    Args:
        files: the ONNX file, or program and weights in Paddle's format.
        threads: the number of compute threads.
    """

    def __init__(self, files: tuple[Path, ...], threads: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="resnet-fit-")
        self._images = Path(self._folder.name, "images.npy")
        self._log = Path(self._folder.name, "log")
        self._name = files[0].name
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                command_of(__name__, self._images, threads, *files),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def run(self, images: np.ndarray) -> tuple[np.ndarray, float]:
        """Probabilities ``[N, classes]`` of images, and the seconds of the computation.

        Raises:
            RunFailed: the process died.
        """
        np.save(self._images, images)
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError):  # reported below
            process.stdin.write("go\n")
            process.stdin.flush()
        answer = process.stdout.readline()
        if not answer:
            raise RunFailed(
                f"{self._name}: cannot be run: the process "
                f"{ending(process.wait(), self._log.read_bytes())}"
            )
        return np.load(_answers(self._images)), float(answer)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()  # waits for its end and closes the pipes
        self._folder.cleanup()


def _answers(images: Path) -> Path:
    return images.with_name("probabilities.npy")


def main(images: str, threads: str, *files: str) -> None:
    """The child process: for each line of input it runs a batch and prints its seconds."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    run = open_files(int(threads), *files)
    for _ in sys.stdin:
        batch = np.load(images)
        started = time.perf_counter()
        probabilities = run(batch)
        seconds = time.perf_counter() - started
        np.save(_answers(Path(images)), probabilities)
        print(seconds, file=answers, flush=True)


def open_files(threads: int, *files: str) -> Callable[[np.ndarray], np.ndarray]:
    """A function from images to probabilities, by the runtime of this file format."""
    return (_onnx if files[0].endswith(".onnx") else _paddle)(threads, *files)


def _onnx(threads: int, file: str) -> Callable[[np.ndarray], np.ndarray]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session: Any = onnxruntime.InferenceSession(file, options, ["CPUExecutionProvider"])
    (entry,) = session.get_inputs()

    def run(images: np.ndarray) -> np.ndarray:
        return session.run(None, {entry.name: images})[0]

    return run


def _paddle(threads: int, program: str, weights: str) -> Callable[[np.ndarray], np.ndarray]:
    from resnet_fit.runtime import prepare_environment

    prepare_environment()
    from paddle import inference

    config = inference.Config(program, weights)
    config.disable_glog_info()
    config.set_cpu_math_library_num_threads(threads)
    predictor = inference.create_predictor(config)
    entry = predictor.get_input_handle(predictor.get_input_names()[0])

    def run(images: np.ndarray) -> np.ndarray:
        entry.copy_from_cpu(np.ascontiguousarray(images))
        predictor.run()
        return predictor.get_output_handle(predictor.get_output_names()[0]).copy_to_cpu()

    return run
