"""Which network was evaluated on which images, with which versions and hardware."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import paddle

from resnet_fit.backends import choose_backend
from resnet_fit.data.dataset import Dataset
from resnet_fit.networks import count_parameters
from resnet_fit.runs.open import OpenedRun
from resnet_fit.runtime import describe


def describe_source(run: OpenedRun, data: Dataset | str | Path | None) -> dict[str, Any]:
    """Describe network, data and environment of an evaluation.

    Args:
        data: as `evaluate` takes it.

    Returns:
        ``run``, ``checkpoint`` and its ``epoch``, ``weights`` (``plain`` or ``averaged``),
        ``network``, ``parameters``, ``data``, ``time``, and versions and device as
        ``environment``.
    """
    device = paddle.get_device()
    backend = choose_backend("auto", device, network=run.network)
    checkpoint = run.checkpoint.resolve()
    return {
        "run": checkpoint.parent.parent.name,
        "checkpoint": checkpoint.name,
        "epoch": run.epoch,
        "weights": "averaged" if run.is_average else "plain",
        "network": run.config.model.part_name,
        "parameters": count_parameters(run.network),
        "data": _data(run, data),
        "time": time.strftime("%Y-%m-%d %H:%M"),
        "environment": describe(device, backend),
    }


def _data(run: OpenedRun, data: Dataset | str | Path | None) -> str:
    if isinstance(data, str | Path):
        return str(data)
    if data is not None:
        return "images passed by a Python program"
    contents = run.record.contents
    part = "held-out images" if contents.test is None else "test set"
    place = getattr(run.config.data, "path", None) or run.config.data.part_name
    return f"{part} of {place}"
