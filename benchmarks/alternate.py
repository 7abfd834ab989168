"""What every benchmark begins and ends with; `resnet_fit.reports.alternation` does the timing."""

from __future__ import annotations

import atexit
import json
import platform
import shutil
import tempfile
from pathlib import Path

from resnet_fit.machine import processor, usable_cores
from resnet_fit.reports.alternation import WORKER, Side, alternate, serve

__all__ = ["WORKER", "Side", "alternate", "machine", "report", "serve", "temporary_folder"]


def machine() -> str:
    """A line that says where the numbers come from."""
    return f"{processor()}, {usable_cores()} cores, Python {platform.python_version()}"


def temporary_folder() -> Path:
    """An empty folder, which is deleted when this process ends."""
    folder = Path(tempfile.mkdtemp(prefix="resnet-fit-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def report(name: str, **ratios: float) -> None:
    """The last line of a benchmark: one JSON object."""
    print(json.dumps({"name": name, **{k: round(v, 3) for k, v in ratios.items()}}))
