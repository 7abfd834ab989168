"""Latency of a batch, in this library and in the runtimes of exported networks.

The sides take turns, so that noise affects all alike. Before each timed batch a side computes one
that is not timed: threads of the side before it go on waiting for work for a while, and keep cores
busy meanwhile.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import numpy as np
import paddle

from resnet_fit.data.dataset import Dataset
from resnet_fit.export.checking import prepared
from resnet_fit.export.metadata import Metadata
from resnet_fit.export.normalisation import normalisation
from resnet_fit.export.running import Running
from resnet_fit.runs.open import OpenedRun

BATCHES = (1, 32)
# Rounds for the median: at most TURNS; after SECONDS no more, but at least FEWEST.
TURNS, FEWEST, SECONDS = 21, 3, 4.0
HERE = "this library"

Work = Callable[[np.ndarray], float]


def measure(
    run: OpenedRun, metadata: Metadata, dataset: Dataset, sides: Mapping[str, Running]
) -> dict[str, dict[int, float]]:
    """Median seconds from images to probabilities, by side and batch size.

    Args:
        sides: exported networks by name; `HERE` is added as the first.
    """
    images, _ = next(iter(prepared(dataset, metadata)))
    works = {HERE: _here(run, metadata)} | {name: _seconds(side) for name, side in sides.items()}
    found: dict[str, dict[int, float]] = {name: {} for name in works}
    for size in BATCHES:
        batch = np.resize(images, (size, *images.shape[1:]))  # repeats images if there are too few
        for name, seconds in _alternate(works, batch).items():
            found[name][size] = statistics.median(seconds)
    return found


def _alternate(works: Mapping[str, Work], batch: np.ndarray) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():  # warm-up
        work(batch)
    started = time.perf_counter()
    for turn in range(TURNS):
        if turn >= FEWEST and time.perf_counter() - started > SECONDS:
            break
        for name, work in works.items():
            work(batch)
            seconds[name].append(work(batch))
    return seconds


def _seconds(running: Running) -> Work:
    return lambda batch: running.run(batch)[1]


def _here(run: OpenedRun, metadata: Metadata) -> Work:
    """The same work in this process."""
    normalize = normalisation(run)[1] if metadata.input == "uint8" else None

    def work(batch: np.ndarray) -> float:
        started = time.perf_counter()
        if normalize is not None:
            batch = normalize.apply(batch.transpose(0, 3, 1, 2), np.empty((len(batch), 0)))
        with paddle.no_grad():
            run.activate(run.network(paddle.to_tensor(batch))).numpy()
        return time.perf_counter() - started

    return work
