"""A part in words: its settings, with type, default and a sentence each.

``resnet-fit list`` and the tables of the documentation are made of this.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, replace
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from resnet_fit.config.operations import schema_of
from resnet_fit.config.settings import Settings

_BASIC = {int: "whole number", float: "number", str: "text", bool: "true or false"}


@dataclass(frozen=True)
class Setting:
    """One setting in words; ``default`` is None where it must be given."""

    name: str
    type: str
    default: str | None
    sentence: str


@dataclass(frozen=True)
class Description:
    """A part in words."""

    name: str
    sentence: str
    settings: tuple[Setting, ...]


def describe(name: str, part: type) -> Description:
    """A part or a section, as its docstrings and fields say."""
    schema = part if issubclass(part, Settings) else schema_of(part)
    sentences: dict[str, str] = {}
    for cls in reversed(part.__mro__):
        sentences |= _arguments(inspect.cleandoc(vars(cls).get("__doc__") or ""))
    settings: list[Setting] = []
    for key, field in schema.model_fields.items():
        kind = _type_in_words(field.annotation, field.metadata)
        settings.append(Setting(key, kind, _default(field), sentences.get(key, "")))
        for section in _sections(field.annotation):
            inner = describe(key, section).settings
            settings.extend(replace(setting, name=f"{key}.{setting.name}") for setting in inner)
    return Description(name, _first_sentence(inspect.cleandoc(part.__doc__ or "")), tuple(settings))


def _sections(annotation: Any) -> list[type[Settings]]:
    """Sections that lie within a section."""
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return [annotation]
    return [section for inner in get_args(annotation) for section in _sections(inner)]


def _first_sentence(text: str) -> str:
    return " ".join(re.split(r"(?<=[.])\s+(?=[A-Z`])|\n\n", text, maxsplit=1)[0].split())


def _arguments(docstring: str) -> dict[str, str]:
    """The sentence of each ``name: sentence`` below ``Args:``, which may go on indented."""
    _, _, below = docstring.partition("Args:\n")
    found: dict[str, str] = {}
    names: list[str] = []
    for line in below.splitlines():
        if line and not line.startswith(" "):
            break
        start = re.match(r"    (\w+(?:, \w+)*): (.*)", line)
        if start:
            names = start[1].split(", ")
            found |= dict.fromkeys(names, start[2])
        elif line.strip():
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found


def _default(field: FieldInfo) -> str | None:
    if field.is_required():
        return None
    default = field.get_default(call_default_factory=True)
    words = {None: "none", True: "true", False: "false"}
    if default is None or isinstance(default, bool):
        return words[default]
    if isinstance(default, (list, tuple, dict)):
        return str(list(default) if isinstance(default, tuple) else default).replace("'", "")
    return str(default)


def _type_in_words(annotation: Any, metadata: Any = ()) -> str:
    """A type and its bounds: ``number above 0``, ``a or b``, ``list of whole numbers``."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_in_words(arguments[0], (*arguments[1:], *metadata))
    if origin is Literal:
        return " or ".join(str(argument) for argument in arguments)
    if origin in (list, tuple):
        inner = next((a for a in arguments if a is not Ellipsis), Any)
        words = _type_in_words(inner)
        return f"list of {words}" if words else "list"
    if origin is dict:
        return "mapping"
    if origin in (Union, UnionType):
        kinds = (_type_in_words(a, metadata) for a in arguments if a is not type(None))
        return " or ".join(dict.fromkeys(kind for kind in kinds if kind))
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return "section"
    return _BASIC.get(annotation, "") + _bounds(metadata)


def _bounds(metadata: Any) -> str:
    words = []
    for bound in _flat(metadata):
        if isinstance(bound, Gt):
            words.append(f"above {bound.gt}")
        elif isinstance(bound, Ge):
            words.append(f"{bound.ge} or more")
        elif isinstance(bound, Lt):
            words.append(f"below {bound.lt}")
        elif isinstance(bound, Le):
            words.append(f"{bound.le} or less")
    return " " + ", ".join(words) if words else ""


def _flat(metadata: Any) -> list[Any]:
    """Bounds as pydantic keeps them: by themselves, or those of a ``Field``."""
    found = []
    for item in metadata:
        found.extend(item.metadata if isinstance(item, FieldInfo) else [item])
    return found
