"""A mistake in a config as one line: place, key, what was received, what is expected."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
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

    def below(self, path: Path) -> Problem:
        """The same problem, seen from a section that has this one at ``path``."""
        return replace(self, path=(*path, *self.path))


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
    path: Path = details["loc"]
    kind, context, received = details["type"], details.get("ctx", {}), details["input"]
    if kind == "extra_forbidden":
        section = _section(path[:-1], schema)
        return Problem(path, unknown(str(path[-1]), "key", section.model_fields))
    if kind == "missing":
        return Problem(path, "required, but not given")
    if kind == "literal_error":
        valid = [v.strip("'") for v in context["expected"].replace(" or ", ", ").split(", ")]
        return Problem(path, unknown(received, "value", valid))
    if kind == "value_error":
        return Problem(path, f"{context['error']}, received {shown(received)}")
    message = f"expected {_expected(kind, context, details['msg'])}, received {shown(received)}"
    return Problem(path, message, wants_text=kind == "string_type")


def _expected(kind: str, context: dict[str, Any], message: str) -> str:
    """What pydantic would have taken."""
    words = {
        "greater_than": "more than {gt:g}",
        "greater_than_equal": "{ge:g} or more",
        "less_than": "less than {lt:g}",
        "less_than_equal": "{le:g} or less",
        "int_type": "a whole number",
        "int_from_float": "a whole number",
        "float_type": "a number",
        "finite_number": "a number",
        "bool_type": "true or false",
        "string_type": "text",
        "list_type": "a list",
        "dict_type": "a section with keys of its own",
        "model_type": "a section with keys of its own",
        "string_pattern_mismatch": "auto, cpu, gpu or gpu:N",
    }
    if kind in words:
        return words[kind].format(**context)
    return message.removeprefix("Input should be ")


def unknown(name: Any, what: str, valid: Iterable[str]) -> str:
    """``unknown key 'lerning_rate'. Did you mean 'learning_rate'? Valid: ...``."""
    valid = list(valid)
    return f"unknown {what} {shown(name)}.{suggest(name, valid)} Valid: {', '.join(valid)}"


def shown(value: Any) -> str:
    """A value as a message has it."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _section(path: Path, schema: type[BaseModel]) -> type[BaseModel]:
    """The section that lies at a path of a schema."""
    for step in path:
        schema = _sections(schema.model_fields[str(step)].annotation)[0]
    return schema


def _sections(annotation: Any) -> list[type[BaseModel]]:
    if get_origin(annotation) in (Annotated, Union, UnionType):
        return [s for arg in get_args(annotation) for s in _sections(arg)]
    is_section = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return [annotation] if is_section else []
