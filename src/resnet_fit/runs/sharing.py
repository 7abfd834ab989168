"""What the other processes get from the first one, so that their machines need no common disk."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from resnet_fit import parallel
from resnet_fit.config.differences import differences
from resnet_fit.errors import UserError
from resnet_fit.runs.config import Config, parse_config, without_warnings
from resnet_fit.runs.resuming import load_run_config

# What may differ between machines: where things are, not what is computed.
OF_A_MACHINE = ("data.path", "data.workers", "data.cache.path", "model.weights")


def run_config(folder: Path, overrides: Sequence[str]) -> Config:
    """The config of a run that goes on, as the first process finds it; see `load_run_config`.

    Raises:
        UserError: as `load_run_config` does.
    """
    if parallel.size() == 1:
        return load_run_config(folder, overrides)
    found: list[Config] = []

    def load() -> dict[str, Any]:
        found.append(load_run_config(folder, overrides))
        return found[0].model_dump()

    value = parallel.first(load)
    return found[0] if found else _parse(value, overrides)


def require_same_config(config: Config) -> None:
    """Refuse another config than that of the first process.

    Raises:
        UserError: with the settings that differ.
    """
    theirs = _parse(parallel.first(config.model_dump))
    for path, of_first, own in differences(theirs.model_dump(), config.model_dump()):
        key = ".".join(map(str, path))
        if key not in OF_A_MACHINE:
            raise UserError(
                f"{key}: received {own!r}, expected {of_first!r} as in the first process; all "
                f"processes train by one config, of which {', '.join(OF_A_MACHINE)} may differ"
            )


@contextmanager
def checkpoint_of_first(folder: str) -> Iterator[Path]:
    """The files of a checkpoint that the first process has, in a temporary folder elsewhere."""
    if parallel.size() == 1:
        yield Path(folder)
        return
    names = parallel.first(lambda: sorted(file.name for file in Path(folder).iterdir()))
    with tempfile.TemporaryDirectory(prefix="resnet-fit-") as copy:
        place = Path(folder if parallel.is_first() else copy)
        for name in names:
            content = parallel.first_bytes((Path(folder) / name).read_bytes)
            if not parallel.is_first():
                (place / name).write_bytes(content)
        yield place


def _parse(value: dict[str, Any], overrides: Sequence[str] = ()) -> Config:
    with without_warnings():  # the first process shows them
        return parse_config(value, overrides)
