"""One YAML file is one experiment: read, checked, overridden, and written out again.

Nothing in this package imports Paddle, so that a mistake in a config is answered at once.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from resnet_fit.config import operations
from resnet_fit.config.checks import check, check_cache
from resnet_fit.config.document import STDIN, Document, dump, read_document
from resnet_fit.config.futile import futile
from resnet_fit.config.overrides import override
from resnet_fit.config.plain import from_python
from resnet_fit.config.problems import Problem, lines_of, problems_of, raise_problems
from resnet_fit.config.schema import Config
from resnet_fit.data import augment, transforms
from resnet_fit.errors import UserError, suggest

__all__ = ["Config", "dump_config", "load_config", "parse_config", "resolve"]


def load_config(file: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read an experiment.

    Args:
        file: a YAML file; ``-`` is the standard input.
        overrides: assignments such as ``"training.epochs=5"``; the last one for a key wins.

    Raises:
        UserError: with one line for each mistake, naming file, line and key.
    """
    file = Path(file)
    if str(file) != STDIN and (file.is_dir() or not file.exists()):
        raise UserError(f"{file}: there is no such config file.{_near(file)}")
    return resolve(read_document(file), overrides)


def parse_config(value: dict[str, Any], overrides: Sequence[str] = ()) -> Config:
    """An experiment from a nested dictionary, checked as a file would be.

    What PyYAML's `safe_load` makes of a config file gives the same experiment as the file.
    """
    return resolve(from_python(value), overrides)


def dump_config(config: Config) -> str:
    """A config as YAML with every default written out; `load_config` reads it back equal."""
    return dump(config.model_dump())


def registry(config: Config) -> dict[str, Any]:
    """The operations a config may list: per file for image folders, else per batch in memory."""
    return dict(transforms.OPERATIONS if config.data.name == "folder" else augment.OPERATIONS)


def resolve(document: Document, overrides: Sequence[str] = ()) -> Config:
    """The experiment that a document and overrides of it describe, with every default."""
    _drop_anchors(document)
    override(document, overrides)
    config = _validate(document)
    problems = list(check(config))
    resolved = {}
    for stage in ("train", "eval"):
        resolved[stage], wrong = _resolve_operations(config, stage)
        problems.extend(wrong)
    raise_problems(problems, document)
    augmentation = config.augmentation.model_copy(update=resolved)
    config = config.model_copy(update={"augmentation": augmentation})
    train = operations.build(resolved["train"], registry(config))
    for line in lines_of(list(futile(config, train)), document):
        warnings.warn(f"{line}: changes nothing", stacklevel=4)
    return config


def _drop_anchors(document: Document) -> None:
    """Sections ``x-...`` are no settings: they hold what YAML's anchors name."""
    document.value = {
        key: value for key, value in document.value.items() if not str(key).startswith("x-")
    }


def _validate(document: Document) -> Config:
    try:
        return Config.model_validate(document.value)
    except ValidationError as error:
        problems = problems_of(error, Config)
    wants_text = [p.path for p in problems if p.wants_text]
    taken = [document.take_as_text(path) for path in wants_text]
    if any(taken):
        return _validate(document)
    raise_problems(problems, document)
    raise AssertionError("a failed validation names its problems")


def _resolve_operations(config: Config, stage: str) -> tuple[list[Any], list[Problem]]:
    """One list with every option written out, and what is wrong with it."""
    path = ("augmentation", stage)
    entries = getattr(config.augmentation, stage)
    known = registry(config)
    parsed, problems = operations.parse(entries, known, path)
    if problems:
        return parsed, problems
    if not any("normalize" in entry for entry in parsed):
        problems.append(Problem(path, "expected normalize, which makes numbers of grey levels"))
    try:
        built = operations.build(parsed, known)
        if config.data.name == "folder":
            geometry, *_ = transforms.stages(built)
            problems.extend(check_cache(config, stage, geometry))
        else:
            augment.check_order(built)
    except UserError as error:
        problems.append(Problem(path, str(error).removeprefix("augmentation: ")))
    return parsed, problems


def _near(file: Path) -> str:
    folder = file.parent if file.parent.is_dir() else Path("configs")
    names = [p.name for p in folder.glob("*.y*ml")] if folder.is_dir() else []
    hint = suggest(file.name, names)
    return hint or (f" {folder}/ has: {', '.join(sorted(names))}" if names else "")
