"""What every benchmark begins and ends with; `resnet_fit.reports.alternation` does the timing."""

from __future__ import annotations

import json
import platform

from resnet_fit.machine import processor, usable_cores
from resnet_fit.reports.alternation import WORKER, Side, alternate, serve

__all__ = ["WORKER", "Side", "alternate", "machine", "report", "serve"]


def machine() -> str:
    """A line that says where the numbers come from."""
    return f"{processor()}, {usable_cores()} cores, Python {platform.python_version()}"


def report(name: str, **ratios: float) -> None:
    """The last line of a benchmark: one JSON object."""
    print(json.dumps({"name": name, **{k: round(v, 3) for k, v in ratios.items()}}))
