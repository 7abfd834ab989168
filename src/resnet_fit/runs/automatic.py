"""The settings that are ``auto``, resolved here once a run's device is known.

On a CPU they are off, but for the backend. On a GPU they are what Paddle's and NVIDIA's documents
recommend and what gave the same results on a CPU; no card has measured them. `benchmarks/gpu.py`
does, and says which of them are the fastest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from resnet_fit import parallel
from resnet_fit.runs.config import Config
from resnet_fit.runs.outcome import ENVIRONMENT

PLACES = {
    "backend": "training",
    "compile": "training",
    "fused": "optimizer",
    "on_device": "augmentation",
}


@dataclass(frozen=True)
class Execution:
    """How a run computes, with every ``auto`` resolved.

    Attributes:
        backend: as of `resnet_fit.backends.use_backend`.
        compile: ``off``, ``static`` or ``cinn``.
        fused: whether the optimizer's steps are one operation.
        on_device: whether the augmentation ends on the network's device.
    """

    backend: str
    compile: str
    fused: bool
    on_device: bool

    def __str__(self) -> str:
        """For people, after the device's name."""
        graphs = {"off": None, "static": "static graph", "cinn": "static graph by CINN"}
        parts = [
            f"{self.backend} backend",
            graphs[self.compile],
            "fused steps" if self.fused else None,
            "augmentation on the device" if self.on_device else None,
        ]
        return ", ".join(part for part in parts if part)

    def to_dict(self) -> dict[str, Any]:
        """For a run's ``environment.json``."""
        return asdict(self)


def resolve_auto(config: Config, device: str, was: Mapping[str, Any] | None = None) -> Config:
    """A config with a value for each ``auto``; what was set by hand stays.

    ``training.backend`` may stay ``auto``: `resnet_fit.backends.choose_backend` resolves it when
    the network is there, since it takes layers of this library for another backend than Paddle's.

    Args:
        device: of the run.
        was: of a run that goes on, from `recorded`.
    """
    on_gpu, half = device != "cpu", config.training.precision != "float32"
    values: dict[str, Any] = {
        # The graph in half precision could not be compared with anything without a card.
        "compile": "off",
        # One operation instead of one for each parameter; the same results on a CPU.
        "fused": on_gpu,
        # A quarter of the bytes go to the card, and the host normalises nothing: it is half
        # precision that makes a GPU wait for its data.
        "on_device": on_gpu and half,
    }
    if on_gpu:
        values |= was or {}
    if parallel.size() > 1:
        values["compile"] = "off"
    sections = {}
    for section in set(PLACES.values()):
        settings = getattr(config, section)
        update = {
            key: value for key, value in values.items() if getattr(settings, key, None) == "auto"
        }
        sections[section] = settings.model_copy(update=update)
    return replace(config, **sections)


def execution(resolved: Config, backend: str) -> Execution:
    """How a config computes that `resolve_auto` made, with the backend that was chosen for it."""
    fused = getattr(resolved.optimizer, "fused", False)
    return Execution(
        backend, resolved.training.compile, fused, resolved.augmentation.on_device is True
    )


def recorded(folder: Path, trained_by: Config) -> dict[str, Any]:
    """What a run on a GPU took for ``auto``, so that it goes on in the same way.

    Args:
        folder: of the run.
        trained_by: the config of its last checkpoint, which says what was ``auto``.

    Returns:
        values by setting; none of a run that was on a CPU, or of one that did not record them.
    """
    try:
        found = json.loads((folder / ENVIRONMENT).read_text(encoding="utf-8"))
        if not str(found["device"]).startswith("gpu"):
            return {}
    except (OSError, ValueError, KeyError, TypeError):  # nothing but these records is lost
        return {}
    return {
        key: found[key]
        for key, section in PLACES.items()
        if key in found and getattr(getattr(trained_by, section), key, None) == "auto"
    }
