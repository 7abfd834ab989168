"""Augmentation lists: a name or ``name: {options}`` in YAML, an operation in the run.

The options an operation takes are its dataclass fields: there is no second list to keep in step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_type_hints

from pydantic import ValidationError, create_model

from resnet_fit.config.problems import Invalid, Problem, problems_of, unknown
from resnet_fit.config.settings import Settings
from resnet_fit.config.yaml12 import Path
from resnet_fit.errors import UserError

Entry = dict[str, dict[str, Any]]


def parse(
    entries: Sequence[Any], registry: Mapping[str, Callable[..., Any]], path: Path
) -> tuple[list[Entry], list[Problem]]:
    """Entries with every option written out, and what is wrong with the others."""
    parsed: list[Entry] = []
    problems: list[Problem] = []
    for i, entry in enumerate(entries):
        try:
            parsed.append(_parse_entry(entry, registry, (*path, i)))
        except Invalid as found:
            problems.extend(found.args)
    return parsed, problems


def build(entries: Sequence[Entry], registry: Mapping[str, Callable[..., Any]]) -> list[Any]:
    """The operations that parsed entries name."""
    return [
        registry[name](**_tuples(options)) for entry in entries for name, options in entry.items()
    ]


def _tuples(options: dict[str, Any]) -> dict[str, Any]:
    """Options as operations take them, where YAML has lists."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}


def _parse_entry(entry: Any, registry: Mapping[str, Callable[..., Any]], path: Path) -> Entry:
    if isinstance(entry, str):
        entry = {entry: {}}
    if not (isinstance(entry, dict) and len(entry) == 1):
        raise Invalid(Problem(path, f"expected 'name' or 'name: {{...}}', received {entry!r}"))
    ((name, given),) = entry.items()
    if name not in registry:
        raise Invalid(Problem(path, unknown(name, "operation", sorted(registry))))
    given = {} if given is None else given
    if not isinstance(given, dict):
        raise Invalid(Problem((*path, name), f"expected options in braces, received {given!r}"))
    operation = registry[name]
    schema = schema_of(operation)
    try:
        options = schema.model_validate(_tuples(given))
    except ValidationError as error:
        raise Invalid(
            *(problem.below((*path, name)) for problem in problems_of(error, schema))
        ) from None
    values = dict(options)
    try:
        operation(**values)
    except UserError as error:
        raise Invalid(Problem((*path, name), str(error))) from None
    return {name: {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}}


def schema_of(operation: Any) -> type[Settings]:
    """The settings of an operation, which are the fields of its dataclass."""
    hints = get_type_hints(operation, include_extras=True)  # with the bounds
    fields: dict[str, Any] = {
        f.name: (hints[f.name], ... if f.default is dataclasses.MISSING else f.default)
        for f in dataclasses.fields(operation)
        if f.init
    }
    return create_model(operation.__name__, __base__=Settings, **fields)
