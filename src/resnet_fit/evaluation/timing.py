"""Inference time of a network."""

from __future__ import annotations

import time

import numpy as np
import paddle

from resnet_fit.runs.open import OpenedRun

# Warm-up passes; the warm-up ends early after `SECONDS`.
WARM_UP = 3
# Timed passes: as many as fit into `SECONDS`, from `FEWEST` to `MOST`; fewer after `MOST_SECONDS`.
FEWEST, MOST = 5, 50
SECONDS, MOST_SECONDS = 1.0, 20.0


def time_network(run: OpenedRun, batch_sizes: tuple[int, ...]) -> list[dict[str, float]]:
    """The median time of a forward pass at several batch sizes, after a warm-up.

    Images are in memory already; logits are copied to the host, which waits for a GPU.

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
    with paddle.no_grad():
        begun = time.perf_counter()
        for _ in range(WARM_UP):
            run.network(images).numpy()
            if time.perf_counter() - begun > SECONDS:
                break
        taken: list[float] = []
        while len(taken) < MOST:
            started = time.perf_counter()
            run.network(images).numpy()
            taken.append(time.perf_counter() - started)
            if sum(taken) > (SECONDS if len(taken) >= FEWEST else MOST_SECONDS):
                break
    return float(np.median(taken))
