"""Predicts files in batches, in the given order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np

from resnet_fit.errors import RunFailed, UserError
from resnet_fit.files import readable
from resnet_fit.machine import usable_cores


class Model(Protocol):
    """A network with its preprocessing: the interface of `RunModel` and `OnnxModel`."""

    @property
    def classes(self) -> tuple[str, ...]: ...

    def prepare(self, path: str, /) -> np.ndarray:
        """Preprocess one file; a bad one raises UserError, whose message begins with the path."""

    def compute(self, images: np.ndarray, /) -> np.ndarray:
        """Probabilities ``[N, classes]`` of a batch."""


def predict(
    model: Model, batches: Iterable[Sequence[str]], ahead: int = 1
) -> Iterator[tuple[str, np.ndarray | UserError]]:
    """Yield each file with its class probabilities, or with the error for a bad file.

    Args:
        model: the network.
        batches: paths of files.
        ahead: batches to decode ahead, while the network works.

    Raises:
        RunFailed: the network's output is NaN or infinite.
    """
    pool = ThreadPoolExecutor(usable_cores())  # decoders release Python's global lock
    try:
        for batch in _decoded(model, batches, ahead, pool):
            images = [image for _, image in batch if not isinstance(image, UserError)]
            rows = iter(model.compute(np.stack(images)) if images else ())
            for path, image in batch:
                yield path, image if isinstance(image, UserError) else _finite(path, next(rows))
    finally:
        pool.shutdown(cancel_futures=True)


def _decoded(
    model: Model, batches: Iterable[Sequence[str]], ahead: int, pool: ThreadPoolExecutor
) -> Iterator[list[tuple[str, np.ndarray | UserError]]]:
    waiting: deque[tuple[Sequence[str], list[Future[np.ndarray | UserError]]]] = deque()

    def prepare(path: str) -> np.ndarray | UserError:
        try:
            return model.prepare(path)
        except UserError as error:
            return error

    def taken() -> list[tuple[str, np.ndarray | UserError]]:
        paths, images = waiting.popleft()
        return [(path, image.result()) for path, image in zip(paths, images, strict=True)]

    for paths in batches:
        waiting.append((paths, [pool.submit(prepare, path) for path in paths]))
        if len(waiting) > ahead:
            yield taken()
    while waiting:
        yield taken()


def _finite(path: str, probabilities: np.ndarray) -> np.ndarray:
    if not np.isfinite(probabilities).all():
        raise RunFailed(f"{readable(path)}: the network's output is NaN or infinite")
    return probabilities
