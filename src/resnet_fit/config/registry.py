"""Parts by kind and name: whatever a config can choose, ours and a user's own.

A part is registered by importing the module that defines it; a config never makes code run.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

from resnet_fit.errors import UserError, check_choice

KINDS = (
    "network",
    "data",
    "augmentation",
    "transform",
    "loss",
    "optimizer",
    "schedule",
    "callback",
)


@dataclass(frozen=True)
class Choice:
    """A section of a config that describes one part, which its ``name`` chooses.

    Attributes:
        kind: of the part.
        default: the name that leaving it out means; None if it must be given.
        keeps: whether another name keeps the section's other settings, where a file or an override
            is laid over another; a learning rate found for SGD means nothing to Adam.
    """

    kind: str
    default: str | None = None
    keeps: bool = False


CHOICES = {
    "model": Choice("network", "resnet"),
    "data": Choice("data", keeps=True),
    "loss": Choice("loss", "cross_entropy"),
    "optimizer": Choice("optimizer"),
    "schedule": Choice("schedule", "constant"),
}

T = TypeVar("T", bound=type)

_parts: dict[str, dict[str, type]] = {kind: {} for kind in KINDS}


def part(kind: str, name: str) -> Callable[[T], T]:
    """Register a class as the part ``name`` of a kind.

    Its settings are its fields: those of a subclass of the kind's base class, or for
    ``augmentation`` and ``transform`` the fields of a frozen dataclass.

    Raises:
        UserError: there is no such kind, or another class has this name already.
    """
    check_choice("kind", kind, KINDS)

    def register(cls: T) -> T:
        known = _parts[kind].get(name)
        if known is not None and _place(known) != _place(cls):
            raise UserError(f"{_place(cls)}: {kind} '{name}' is already {_place(known)}")
        _parts[kind][name] = cls
        cls.part_kind, cls.part_name = kind, name  # type: ignore[attr-defined]
        return cls

    return register


def parts(kind: str) -> Mapping[str, type]:
    """All parts of a kind that have been imported, by name."""
    return MappingProxyType(_parts[kind])


def import_all(package: str, path: Iterable[str]) -> None:
    """Import every module of a folder of parts, so that a new part is one new file.

    Args:
        package: the ``__name__`` of the package.
        path: its ``__path__``.
    """
    for module in pkgutil.iter_modules(path):
        importlib.import_module(f"{package}.{module.name}")


def _place(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
