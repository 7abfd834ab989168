"""Where tests of a GPU compute: the fixture `device` of `tests/conftest.py` gives a `Device`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from pretended import GPU, let_precision_pass, let_runs_see_a_gpu

from resnet_fit.errors import RunFailed, UserError
from resnet_fit.runtime import choose_device

PRETENDED = Path(__file__).resolve().parents[1] / "pretended.py"


class Device(NamedTuple):
    """A GPU, or a CPU that poses as one.

    Attributes:
        name: as Paddle calls it.
        is_gpu: whether it is one.
    """

    name: str
    is_gpu: bool

    @property
    def seen_as(self) -> str:
        """What a run takes it for."""
        return self.name if self.is_gpu else GPU

    def command(self, *words: object) -> list[str]:
        """The command line in a process of its own."""
        program = ["-m", "resnet_fit"] if self.is_gpu else [str(PRETENDED)]
        return [sys.executable, *program, *map(str, words)]


def take(name: str, monkeypatch: pytest.MonkeyPatch) -> Device:
    """Let Paddle compute on a device; skips the test where it cannot."""
    import paddle

    try:
        found = choose_device(name)
    except (UserError, RunFailed) as error:
        pytest.skip(f"no GPU to test on: {error}")
    if found == "cpu":
        let_precision_pass(monkeypatch)
        let_runs_see_a_gpu(monkeypatch)
    else:
        paddle.set_flags({"FLAGS_cudnn_deterministic": True})
    return Device(found, found != "cpu")
