"""How long a network takes."""

from __future__ import annotations

import time

import numpy as np
import paddle

from resnet_fit.runs.open import OpenedRun

# Passes before the clock counts, and after: as many as fit into the seconds, within these bounds.
WARM_UP = 3
FEWEST, MOST = 5, 50
SECONDS = 1.0


def time_network(run: OpenedRun, batch_sizes: tuple[int, ...]) -> list[dict[str, float]]:
    """The median time of a pass at several batch sizes, once it is warm.

    Images are ready in memory and the logits are fetched, so that a GPU has finished.

    Returns:
        for each size ``batch_size``, ``milliseconds`` of a batch, and ``images_per_second``.
    """
    rows = []
    for size in dict.fromkeys(batch_sizes):
        images = paddle.zeros([size, *run.record.image_shape], "float32")
        seconds = _median_seconds(run, images)
        rows.append(
            {
                "batch_size": size,
                "milliseconds": 1000 * seconds,
                "images_per_second": size / seconds,
            }
        )
    return rows


def _median_seconds(run: OpenedRun, images: paddle.Tensor) -> float:
    taken: list[float] = []
    begun = time.perf_counter()
    with paddle.no_grad():
        for i in range(WARM_UP + MOST):
            started = time.perf_counter()
            run.network(images).numpy()
            ended = time.perf_counter()
            if i >= WARM_UP:
                taken.append(ended - started)
            if len(taken) >= FEWEST and ended - begun > SECONDS:
                break
    return float(np.median(taken))
