"""Trainings that die right after a checkpoint, as a power cut would have it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import pytest

from resnet_fit.callbacks import Checkpoint


class Stop(Exception):
    pass


def stop_after(monkeypatch: pytest.MonkeyPatch, saves: int) -> None:
    """Let a training die right after its so-many-th checkpoint."""
    numbers = count(1)
    stop_when(monkeypatch, lambda _: next(numbers) == saves)


def stop_when(monkeypatch: pytest.MonkeyPatch, ends: Callable[[Checkpoint], bool]) -> None:
    """Let a training die right after the first checkpoint for which ``ends`` is true."""
    save = Checkpoint.save

    def saving(self: Checkpoint) -> None:
        save(self)
        if ends(self):
            raise Stop

    monkeypatch.setattr(Checkpoint, "save", saving)
