"""Where a run's images are normalised, which an exported network may do by itself."""

from __future__ import annotations

from resnet_fit.config.operations import build
from resnet_fit.data.augment import Normalize
from resnet_fit.errors import UserError
from resnet_fit.runs.open import OpenedRun


def normalisation(run: OpenedRun) -> tuple[int, Normalize]:
    """Its place in a run's preprocessing, and the operation.

    Raises:
        UserError: an operation comes after it.
    """
    entries = run.record.preprocessing
    operations = build(entries, run.config.data.operations())
    place = next(i for i, each in enumerate(operations) if isinstance(each, Normalize))
    if place + 1 < len(entries):
        ((late, _),) = entries[place + 1].items()
        raise UserError(
            f"augmentation.eval: {late} comes after normalize, which is computed within the "
            "exported network; export with --input float32, and do both before it"
        )
    return place, operations[place]
