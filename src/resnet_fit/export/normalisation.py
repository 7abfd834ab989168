"""The normalisation of a run's images, which may become part of the exported network."""

from __future__ import annotations

from resnet_fit.config.operations import build
from resnet_fit.data.augment import Normalize
from resnet_fit.errors import UserError
from resnet_fit.runs.open import OpenedRun


def normalisation(run: OpenedRun) -> tuple[int, Normalize]:
    """The index of ``normalize`` in a run's preprocessing, and the operation.

    Raises:
        UserError: an operation comes after it.
    """
    entries = run.record.preprocessing
    operations = build(entries, run.config.data.operations())
    place = next(i for i, each in enumerate(operations) if isinstance(each, Normalize))
    if place + 1 < len(entries):
        ((late, _),) = entries[place + 1].items()
        raise UserError(
            f"augmentation.eval: {late} comes after normalize, which is part of the exported "
            "network; export with --input float32, and apply both in your program"
        )
    return place, operations[place]
