"""The configs that come with this library, found by name wherever it is installed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from resnet_fit.errors import UserError, suggest
from resnet_fit.home import expand

PACKAGE = Path(__file__).resolve().parents[1]
# In the wheel they lie in the package, in a checkout beside src/.
FOLDERS = (PACKAGE / "configs", PACKAGE.parents[1] / "configs")


@dataclass(frozen=True)
class Shipped:
    """A config that comes with this library: its file, its first sentence, its measured result."""

    file: Path
    sentence: str
    measured: str

    @property
    def name(self) -> str:
        return self.file.stem


def shipped() -> Iterator[Shipped]:
    """All of them, by name."""
    folder = next((folder for folder in FOLDERS if folder.is_dir()), None)
    for file in sorted(folder.glob("*.yaml")) if folder else ():
        comment = _comment(file)
        sentence = comment.split("\n\n")[0].replace("\n", " ")
        _, _, measured = comment.partition("Measured: ")
        yield Shipped(file, sentence, " ".join(measured.split("\n\n")[0].split()))


def find_config(name: str | Path) -> Path:
    """The file of a config: a path, or the name of one that comes with this library.

    Raises:
        UserError: neither is there; the message has the nearest name.
    """
    file = expand(name)
    if file.exists() and not file.is_dir():  # a pipe as well
        return file
    found = shipped_file(str(name))
    if found is not None:
        return found
    names = [config.name for config in shipped()]
    folder = file.parent if file.parent.is_dir() else Path()
    there = sorted(path.name for path in folder.glob("*.y*ml"))
    hint = suggest(file.name, [*there, *names])
    if not hint:
        hint = f" {folder}/ has: {', '.join(there)}" if there else f" Valid: {', '.join(names)}"
    raise UserError(f"{name}: there is no such config file.{hint}")


def shipped_file(name: str) -> Path | None:
    """The file of a config that comes with this library, by its name with or without ``.yaml``."""
    stem = name.removesuffix(".yaml")
    return next((config.file for config in shipped() if config.name == stem), None)


def _comment(file: Path) -> str:
    """The comment that a config begins with."""
    lines = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line[1:].strip())
    return "\n".join(lines)
