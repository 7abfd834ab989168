"""A mistake in a config as one line: place, key, what was received, what is expected."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from resnet_fit.config.document import Document
from resnet_fit.config.registry import CHOICES, parts
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


class Invalid(Exception):
    """A section or an entry of a list that is refused; its ``args`` are the `Problem`s."""


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
        return Problem(path, _unknown_key(str(path[-1]), _section(path[:-1], schema)))
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
    """What pydantic expects, in words."""
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
        "string_pattern_mismatch": "text that matches {pattern}",
    }
    if kind in words:
        return words[kind].format(**context)
    return message.removeprefix("Input should be ")


def unknown(name: Any, what: str, valid: Iterable[str]) -> str:
    """``unknown key 'lerning_rate'. Did you mean 'learning_rate'? Valid: ...``."""
    valid = list(valid)
    return f"unknown {what} {shown(name)}.{suggest(name, valid)} Valid: {', '.join(valid)}"


def _unknown_key(key: str, section: type[BaseModel]) -> str:
    """The message for an unknown key, with the other parts of the same kind that have it."""
    kind, name = getattr(section, "part_kind", None), getattr(section, "part_name", None)
    if kind is None:
        return unknown(key, "key", section.model_fields)
    chosen_by = ["name"] if any(choice.kind == kind for choice in CHOICES.values()) else []
    valid = [*chosen_by, *section.model_fields]
    others = [o for o, cls in parts(kind).items() if key in getattr(cls, "model_fields", ())]
    if not others:
        return unknown(key, "key", valid)
    has = "has" if len(others) == 1 else "have"
    return f"{name} has no key {shown(key)}, {', '.join(others)} {has}. Valid: {', '.join(valid)}"


def shown(value: Any) -> str:
    """A value as a message has it."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _section(path: Path, schema: type[BaseModel]) -> type[BaseModel]:
    """The section that lies at a path of a schema."""
    annotation: Any = schema
    for step in path:
        annotation = _below(annotation, str(step))
    return next(option for option in _options(annotation) if _is_section(option))


def _below(annotation: Any, step: str) -> Any:
    """What may stand at a key of a section or a mapping, or in a list."""
    for option in _options(annotation):
        if _is_section(option):
            return option.model_fields[step].annotation
        if get_args(option):
            return get_args(option)[-1]
    raise LookupError(f"{annotation} has no {step}")


def _options(annotation: Any) -> list[Any]:
    if get_origin(annotation) in (Annotated, Union, UnionType):
        return [option for argument in get_args(annotation) for option in _options(argument)]
    return [annotation]


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
