"""The config of an experiment: its sections, each checked by the part that it describes.

Nothing here imports Paddle, so that a mistake in a config is answered at once.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from resnet_fit.callbacks.optional import CallbackPart
from resnet_fit.config import operations
from resnet_fit.config.document import STDIN, Document, dump, read_document
from resnet_fit.config.overrides import override
from resnet_fit.config.plain import from_python
from resnet_fit.config.problems import (
    Invalid,
    Problem,
    lines_of,
    problems_of,
    raise_problems,
    unknown,
)
from resnet_fit.config.registry import CHOICES, parts
from resnet_fit.config.settings import Part, Settings
from resnet_fit.config.shipped import find_config
from resnet_fit.data.augment.settings import Augmentation
from resnet_fit.data.datasets import Data
from resnet_fit.networks.families import Network
from resnet_fit.training.losses import Loss
from resnet_fit.training.optimizers import Optimizer
from resnet_fit.training.schedules import Schedule
from resnet_fit.training.settings import Checkpoint, Training

SECTIONS: dict[str, type[Settings]] = {
    "augmentation": Augmentation,
    "training": Training,
    "checkpoint": Checkpoint,
}
CALLBACKS_ON: dict[str, Any] = {"visualdl": {}}


@dataclass(frozen=True)
class Config:
    """A whole experiment. Made by `load_config` or `parse_config`, which check it."""

    model: Network
    data: Data
    augmentation: Augmentation
    loss: Loss
    optimizer: Optimizer
    schedule: Schedule
    training: Training
    checkpoint: Checkpoint
    callbacks: Mapping[str, CallbackPart | None]

    @property
    def averages_weights(self) -> bool:
        return self.callbacks.get("weight_average") is not None

    def model_dump(self) -> dict[str, Any]:
        """All of it as plain values, every default written out."""
        dumped: dict[str, Any] = {}
        for field in fields(self):
            section = getattr(self, field.name)
            if isinstance(section, Part):
                dumped[field.name] = {"name": section.part_name, **section.model_dump()}
            elif isinstance(section, Settings):
                dumped[field.name] = section.model_dump()
            else:
                dumped[field.name] = {k: v and v.model_dump() for k, v in section.items()}
        return dumped


@contextmanager
def without_warnings() -> Iterator[None]:
    """For a config that is read once more: its warnings are shown another time."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def load_config(file: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read an experiment.

    Args:
        file: a YAML file, or the name of a config that comes with this library; ``-`` is the
            standard input.
        overrides: assignments such as ``"training.epochs=5"``; the last one for a key wins.

    Raises:
        UserError: with one line for each mistake, naming file, line and key.
    """
    found = Path(STDIN) if str(file) == STDIN else find_config(file)
    return resolve(read_document(found), overrides)


def parse_config(value: dict[str, Any], overrides: Sequence[str] = ()) -> Config:
    """An experiment from a nested dictionary, checked as a file would be.

    What PyYAML's `safe_load` makes of a config file gives the same experiment as the file.
    """
    return resolve(from_python(value), overrides)


def dump_config(config: Config) -> str:
    """A config as YAML with every default written out; `load_config` reads it back equal."""
    return dump(config.model_dump())


def resolve(document: Document, overrides: Sequence[str] = ()) -> Config:
    """The experiment that a document and overrides of it describe, with every default."""
    _drop_anchors(document)
    override(document, overrides)
    sections, problems = _sections(document.value)
    as_text = [document.take_as_text(p.path) for p in problems if p.wants_text]
    if any(as_text):
        sections, problems = _sections(document.value)
    raise_problems(problems, document)
    config = Config(**sections)
    raise_problems(list(_conflicts(config)), document)
    for line in lines_of(list(_without_effect(config)), document):
        warnings.warn(f"{line}: changes nothing", stacklevel=3)
    return config


def _drop_anchors(document: Document) -> None:
    """Sections ``x-...`` are no settings: they hold what YAML's anchors name."""
    document.value = {
        key: value for key, value in document.value.items() if not str(key).startswith("x-")
    }


def _sections(value: Mapping[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """Every section by itself, and what is wrong with each."""
    keys = [field.name for field in fields(Config)]
    problems = [Problem((key,), unknown(key, "key", keys)) for key in value if key not in keys]
    sections: dict[str, Any] = {}
    for key in keys:
        try:
            sections[key] = _section(key, value)
        except Invalid as error:
            problems.extend(error.args)
    if not problems:
        return sections, list(_resolve_operations(sections))
    return sections, problems


OWN_PART = "a part of your own is known once the module that registers it is imported"


def _section(key: str, value: Mapping[str, Any]) -> Any:
    if key == "callbacks":
        return _callbacks(value.get(key))
    choice = CHOICES.get(key)
    if choice is None:
        return _settings(SECTIONS[key], value.get(key, {}), (key,))
    if key not in value and choice.default is None:
        raise Invalid(Problem((key,), "required, but not given"))
    given = value.get(key, {})
    _require_section(given, (key,))
    name = given.get("name", choice.default)
    known = parts(choice.kind)
    if name is None:
        listed = ", ".join(known)
        raise Invalid(Problem((key, "name"), f"required, but not given; one of {listed}"))
    if not isinstance(name, str) or name not in known:
        message = unknown(name, "name", known)
        hint = "" if "Did you mean" in message else f"; {OWN_PART}"
        raise Invalid(Problem((key, "name"), message + hint))
    rest = {k: v for k, v in given.items() if k != "name"}
    return _settings(known[name], rest, (key,))


def _callbacks(given: Any) -> dict[str, CallbackPart | None]:
    """Callbacks by name; null or false turns one off, true or ``{}`` takes its defaults."""
    _require_section({} if given is None else given, ("callbacks",))
    known = parts("callback")
    chosen: dict[str, CallbackPart | None] = {}
    problems: list[Problem] = []
    for name, options in {**CALLBACKS_ON, **(given or {})}.items():
        path = ("callbacks", name)
        if name not in known:
            problems.append(Problem(path, unknown(name, "callback", known)))
            continue
        try:
            off = options is None or options is False
            options = {} if options is True else options
            chosen[name] = None if off else _settings(known[name], options, path)
        except Invalid as error:
            problems.extend(error.args)
    if problems:
        raise Invalid(*problems)
    return chosen


def _require_section(value: Any, path: tuple[str, ...]) -> None:
    if not isinstance(value, dict):
        message = f"expected a section with keys of its own, received {value!r}"
        raise Invalid(Problem(path, message))


def _settings(cls: type[Settings], value: Any, path: tuple[str, ...]) -> Any:
    _require_section(value, path)
    try:
        return cls.model_validate(value)
    except ValidationError as error:
        raise Invalid(*(p.below(path) for p in problems_of(error, cls))) from None


def _resolve_operations(sections: dict[str, Any]) -> Iterator[Problem]:
    """Write out every option of the augmentation lists."""
    augmentation, known = sections["augmentation"], sections["data"].operations()
    resolved = {}
    for stage in ("train", "eval"):
        path = ("augmentation", stage)
        entries = getattr(augmentation, stage)
        resolved[stage], problems = operations.parse(entries, known, path)
        yield from problems
    sections["augmentation"] = augmentation.model_copy(update=resolved)


def _conflicts(config: Config) -> Iterator[Problem]:
    """What is wrong between settings."""
    for path, section in _all(config):
        yield from (problem.below(path) for problem in section.problems(config))


def _without_effect(config: Config) -> Iterator[Problem]:
    for path, section in _all(config):
        yield from (problem.below(path) for problem in section.no_effect(config))


def _all(config: Config) -> Iterator[tuple[tuple[str, ...], Settings]]:
    for field in fields(config):
        section = getattr(config, field.name)
        if isinstance(section, Settings):
            yield (field.name,), section
        else:
            yield from (((field.name, key), part) for key, part in section.items() if part)
