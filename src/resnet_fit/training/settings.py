"""The settings of a training that belong to no part of it alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field

from resnet_fit.config.problems import Problem
from resnet_fit.config.settings import NonNegativeInt, OrOff, Positive, PositiveInt, Settings
from resnet_fit.runtime import DEVICE

if TYPE_CHECKING:
    from resnet_fit.runs.config import Config


def _device(name: str) -> str:
    if not re.match(DEVICE, name):
        raise ValueError("expected auto, cpu, gpu or gpu:N")
    return name


class Training(Settings):
    """How long, where and by what means.

    Args:
        epochs: passes over the training images.
        evaluate_every: epochs from one evaluation to the next; the last epoch always has one.
        seed: of every random draw.
        accumulate: batches whose gradients make one optimizer step.
        on_nan: what follows a loss or gradient that is NaN or infinite: ``stop`` the run, or
            ``skip`` the step.
        device: ``cpu``, ``gpu``, ``gpu:N``, or ``auto``, a GPU where there is one.
        precision: of the network's arithmetic; weights are float32 in any case. A CPU has
            ``bfloat16``, by the onednn backend, where the processor computes in it.
        backend: ``paddle``, Paddle's own operations; ``channels_last``, the same in the layout that
            half precision wants on a GPU; ``onednn``, several times as fast on a CPU; ``auto``
            takes ``onednn`` on a CPU, and on a GPU ``channels_last`` in half precision.
        compile: ``static`` makes one graph of Paddle's own operations, ``cinn`` by Paddle's
            compiler for GPUs; ``auto`` is ``off`` until a card has measured a gain.
    """

    epochs: PositiveInt
    evaluate_every: PositiveInt = 1
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    accumulate: PositiveInt = 1
    on_nan: Literal["stop", "skip"] = "stop"
    device: Annotated[str, AfterValidator(_device)] = "auto"
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    backend: Literal["auto", "paddle", "channels_last", "onednn"] = "auto"
    compile: Annotated[Literal["auto", "off", "static", "cinn"], OrOff] = "auto"

    def problems(self, config: Config | None) -> Iterator[Problem]:
        if self.compile in ("static", "cinn") and self.backend == "onednn":
            yield Problem(
                ("compile",),
                f"onednn's operations have no static form: received {self.compile} with "
                "training.backend: onednn; use paddle or channels_last",
            )
        if self.on_nan == "skip" and self.accumulate > 1:
            yield Problem(
                ("on_nan",),
                f"skip needs training.accumulate: 1, received {self.accumulate}: of accumulated "
                "batches no single one can be left out",
            )


class Checkpoint(Settings):
    """Which epoch is the best, and how often to save.

    Args:
        monitor: the metric of the evaluation that says which epoch is ``best``: ``loss``, ``top1``,
            ``top5``, with ``ema_`` or ``flip_`` in front those of the other evaluations. Of a loss
            the lowest value is the best, of the others the highest.
        every_minutes: how often ``last`` is saved within an epoch.
        every_steps: the same, counted in steps.
        keep: of how many epochs, the newest ones, the checkpoint stays as ``epoch-0001`` etc.
    """

    monitor: str = "top1"
    every_minutes: Positive = 10.0
    every_steps: PositiveInt | None = None
    keep: NonNegativeInt = 0

    def problems(self, config: Config | None) -> Iterator[Problem]:
        needed = {"ema_": "weight_average", "flip_": "flip_average"}
        for prefix, callback in needed.items():
            missing = config is not None and not config.callbacks.get(callback)
            if self.monitor.startswith(prefix) and missing:
                yield Problem(
                    ("monitor",), f"{self.monitor} needs callbacks.{callback}, which is not on"
                )
        if not re.fullmatch(r"(\w+_)?(loss|top[1-5])", self.monitor):
            yield Problem(("monitor",), f"expected loss, top1 or top5, received {self.monitor!r}")
