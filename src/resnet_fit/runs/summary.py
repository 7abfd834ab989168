"""The summary of a run in one file."""

from __future__ import annotations

from typing import Any

from resnet_fit.callbacks.history import Row, best_row
from resnet_fit.runs.experiment import Experiment


def summarize(
    experiment: Experiment,
    rows: list[Row],
    environment: dict[str, Any],
    test: dict[str, float] | None,
) -> dict[str, Any]:
    """The content of ``summary.json``: metrics last and best, cost, config, versions, hardware.

    ``judged_on`` says which images the epochs were evaluated on, and so ``best`` was chosen by.
    """
    config = experiment.config
    images = experiment.counts["train_images"] * len(rows)
    trained = sum(row["train_seconds"] for row in rows)
    judged_on = config.data.judged_on(experiment.loaders.evaluation.dataset)
    return {
        "last": rows[-1],
        "best": best_row(rows, config.checkpoint.monitor),
        "judged_on": "validation" if test is not None else judged_on,
        "test": test,
        "epochs": len(rows),
        "seconds": rows[-1]["seconds"],
        "images_per_second": round(images / trained, 1),
        **experiment.counts,
        "environment": environment,
        "config": config.model_dump(),
    }
