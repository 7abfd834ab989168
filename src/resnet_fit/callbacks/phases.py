"""The order of callbacks, by the ``phase`` of each."""

from __future__ import annotations

from collections.abc import Iterable

import paddle

from resnet_fit.errors import check_choice

# guard: looks at a step before anything else; schedule: sets what the next step needs; evaluate:
# adds figures to an evaluation; record: writes figures down; save: checkpoints, which hold the
# state of all before; interrupt: ends the training, once it is saved.
PHASES = ("guard", "schedule", "evaluate", "record", "save", "interrupt")


def in_order(
    callbacks: Iterable[paddle.callbacks.Callback],
) -> list[paddle.callbacks.Callback]:
    """Callbacks sorted by phase; those of one phase keep their order.

    Raises:
        UserError: a callback has a phase that does not exist.
    """
    return sorted(callbacks, key=_place)


def _place(callback: paddle.callbacks.Callback) -> int:
    phase = getattr(callback, "phase", "record")
    check_choice(f"phase of {type(callback).__name__}", phase, PHASES)
    return PHASES.index(phase)
