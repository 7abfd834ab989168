"""A CPU that is told to be a GPU, for what a run does there: all but the numbers' own type.

    python tests/pretended.py ARGUMENTS

is the command line on such a CPU.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import paddle
import paddle.amp.grad_scaler
import pytest

from resnet_fit.runs import experiment
from resnet_fit.runs import fit as fitting
from resnet_fit.runtime import describe

GPU = "gpu:0"


class Place:
    """What Paddle calls a place, and asks what it is."""

    def is_gpu_place(self) -> bool:
        return True


def let_precision_pass(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Let mixed precision pass on this CPU; what was cast to, for each pass of the network."""
    asked: list[tuple[str, str]] = []
    auto_cast = paddle.amp.auto_cast

    def noted(enable: bool = True, **options: Any) -> Any:
        if enable and "dtype" in options:  # `paddle.Model` gives none
            asked.append((options["level"], options["dtype"]))
        return auto_cast(enable=False)

    monkeypatch.setattr(experiment, "check_precision", lambda *_: None)
    monkeypatch.setattr(paddle.amp, "auto_cast", noted)
    tracer = SimpleNamespace(_expected_place=Place())
    monkeypatch.setattr(paddle.amp.grad_scaler, "_dygraph_tracer", lambda: tracer)
    return asked


def let_runs_see_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a run take this CPU for a GPU, without asking it for name or memory."""
    monkeypatch.setattr(experiment, "choose_device", lambda _: GPU)
    monkeypatch.setattr(
        fitting, "describe", lambda device, *rest: describe("cpu", *rest) | {"device": device}
    )
    monkeypatch.setattr("resnet_fit.gpu.summary", lambda _: "a CPU that poses as one")
    monkeypatch.setattr(paddle.device, "synchronize", lambda *_: None)
    monkeypatch.setattr(paddle.device.cuda, "max_memory_reserved", lambda *_: 0)


def main() -> int:
    """The command line of this library."""
    from resnet_fit.cli import main

    patch = pytest.MonkeyPatch()
    let_precision_pass(patch)
    let_runs_see_a_gpu(patch)
    return main()


if __name__ == "__main__":
    raise SystemExit(main())
