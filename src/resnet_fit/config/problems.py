"""A mistake in a config as one line: place, key, what was received, what is expected."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from resnet_fit.config.document import Document
from resnet_fit.config.yaml12 import Path, printable
from resnet_fit.errors import UserError, suggest


@dataclass(frozen=True)
class Problem:
    """What is wrong with the value at ``path``; ``wants_text`` where text would be right."""

    path: Path
    message: str
    wants_text: bool = False


def raise_problems(problems: Sequence[Problem], document: Document) -> None:
    """Raise one UserError with a line for each problem, in the order of the document."""
    if problems:
        raise UserError("\n".join(lines_of(problems, document)))


def lines_of(problems: Sequence[Problem], document: Document) -> list[str]:
    """A line for each problem: its place in the document, its key (once), its message."""
    lines = []
    for problem in problems:
        key = ".".join(printable(part) for part in problem.path)
        place = document.place(problem.path)
        parts = (place, "" if place == f"--set {key}" else key, problem.message)
        lines.append(": ".join(part for part in parts if part))
    return lines


def problems_of(error: ValidationError, schema: type[BaseModel]) -> list[Problem]:
    """Pydantic's findings in this project's words."""
    return [_problem(details, schema) for details in error.errors()]


def _problem(details: ErrorDetails, schema: type[BaseModel]) -> Problem:
    path, section = _walk(details["loc"], schema)
    kind, context, received = details["type"], details.get("ctx", {}), details["input"]
    if kind == "extra_forbidden":
        valid = list(section.model_fields) if section else []
        return Problem(path, unknown(str(path[-1]), "key", valid))
    if kind == "missing":
        return Problem(path, "required, but not given")
    if kind == "union_tag_not_found":
        return Problem((*path, "name"), f"required, but not given; {_choices(schema, path)}")
    if kind == "union_tag_invalid":
        valid = _tags(schema, path)
        return Problem((*path, "name"), unknown(str(context["tag"]), "name", valid))
    if kind == "literal_error":
        valid = [v.strip("'") for v in context["expected"].replace(" or ", ", ").split(", ")]
        return Problem(path, unknown(received, "value", valid))
    if kind == "value_error":
        return Problem(path, f"{context['error']}, received {shown(received)}")
    expected = details["msg"].removeprefix("Input should be ")
    if kind.endswith("_type") and kind.startswith("model"):
        expected = "a section with keys of its own"
    if kind == "string_pattern_mismatch":
        expected = "auto, cpu, gpu or gpu:N"
    message = f"expected {expected}, received {shown(received)}"
    return Problem(path, message, wants_text=kind == "string_type")


def unknown(name: Any, what: str, valid: Iterable[str]) -> str:
    """``unknown key 'lerning_rate'. Did you mean 'learning_rate'? Valid: ...``."""
    valid = list(valid)
    return f"unknown {what} {shown(name)}.{suggest(name, valid)} Valid: {', '.join(valid)}"


def shown(value: Any) -> str:
    """A value as a message has it."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _walk(
    location: tuple[str | int, ...], schema: type[BaseModel]
) -> tuple[Path, type[BaseModel] | None]:
    """The key path of pydantic's location, and the section that holds its last key.

    In a union that is told apart by ``name``, pydantic puts the name into the location: it picks
    the section and is left out of the path.
    """
    path: list[str | int] = []
    section: type[BaseModel] | None = schema
    members: list[type[BaseModel]] = []
    for step in location:
        if len(members) > 1:
            section = next(m for m in members if step in _names(m))
            members = []
            continue
        if members:
            section, members = members[0], []
        path.append(step)
        if section is not None and step in section.model_fields:
            members = _sections(section.model_fields[str(step)].annotation)
    return tuple(path), section


def _sections(annotation: Any) -> list[type[BaseModel]]:
    if get_origin(annotation) in (Annotated, Union, UnionType, dict):
        return [s for arg in get_args(annotation) for s in _sections(arg)]
    is_section = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return [annotation] if is_section else []


def _names(section: type[BaseModel]) -> tuple[str, ...]:
    return get_args(section.model_fields["name"].annotation)


def _tags(schema: type[BaseModel], path: Path) -> list[str]:
    members = _sections(schema.model_fields[str(path[0])].annotation)
    return [name for member in members for name in _names(member)]


def _choices(schema: type[BaseModel], path: Path) -> str:
    return "one of " + ", ".join(_tags(schema, path))
