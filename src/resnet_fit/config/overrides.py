"""Changes to a config from the command line: ``section.key=value``, the value in YAML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import yaml

from resnet_fit.config.document import DEFAULT_NAMES, Document
from resnet_fit.config.yaml12 import Builder, NotYAML, Path, compose, plain_scalar, printable
from resnet_fit.errors import UserError, suggest

# What YAML itself reads: quotes, brackets, block text, tags, anchors. All else without a colon or a
# dash in front is plain text, number, truth value or nothing.
_MARKS = tuple("\"'[{|>!&*")


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:197]}..."


@dataclass(frozen=True)
class _Assignment:
    """``a.b=value``: the keys, the text of the value, and all of it as messages show it."""

    keys: tuple[str, ...]
    text: str
    shown: str

    @classmethod
    def parse(cls, assignment: str) -> _Assignment:
        dotted, equals, text = assignment.partition("=")
        keys = tuple(key.strip() for key in dotted.split("."))
        shown = f"--set {_short(printable(assignment))}"
        if not equals or not all(keys):
            raise UserError(f"{shown}: expected KEY=VALUE, such as training.epochs=5")
        text = text.strip(" \t\r\n")
        if not text:  # most likely a variable of the shell that is not set
            raise UserError(f"{shown}: no value; null stands for nothing, '\"\"' for empty text")
        return cls(keys, text, shown)

    @property
    def place(self) -> str:
        return f"--set {_short('.'.join(map(printable, self.keys)))}"

    @property
    def sets_name(self) -> bool:
        """Whether this is the ``name`` on which the other keys of its section depend."""
        return len(self.keys) == 2 and self.keys[0] in DEFAULT_NAMES and self.keys[1] == "name"


def override(document: Document, assignments: Sequence[str]) -> None:
    """Apply each ``a.b=value`` to a document. The last of several for one key wins.

    Raises:
        UserError: naming the assignment that is wrong.
    """
    for assignment in _names_first(_Assignment.parse(text) for text in assignments):
        _apply(document, assignment)


def _names_first(assignments: Iterable[_Assignment]) -> list[_Assignment]:
    """Each section's name before its other keys, which may be given in any order."""
    ordered: list[_Assignment] = []
    for new in assignments:
        place = len(ordered)
        while new.sets_name and place and not _replaces(ordered[place - 1], new):
            place -= 1
        ordered.insert(place, new)
    return ordered


def _replaces(earlier: _Assignment, name: _Assignment) -> bool:
    return earlier.keys in (name.keys, name.keys[:1])


def _apply(document: Document, assignment: _Assignment) -> None:
    keys = assignment.keys
    target: Any = document.value
    path: Path = ()
    for key, following in pairwise(keys):
        step = _step(target, key, path, assignment)
        path = (*path, step)
        if isinstance(target, dict) and (
            target.get(step) is None or _is_switch(path, target[step])
        ):
            target[step] = {}
        elif isinstance(target, list) and target[step] == following:
            target[step] = {following: {}}  # an operation, so far without options
        target = target[step]
    step = _step(target, keys[-1], path, assignment)
    value = _read(assignment)
    if assignment.sets_name and target.get("name", DEFAULT_NAMES[keys[0]]) != value:
        target.clear()
        document.replace(path, assignment.place)
    target[step] = value
    path = (*path, step)
    document.replace(path, assignment.place)
    document.texts[path] = assignment.text


def _is_switch(path: Path, value: Any) -> bool:
    """Whether a value turns a callback on or off, which settings of it do as well."""
    return len(path) == 2 and path[0] == "callbacks" and isinstance(value, bool)


def _step(target: Any, key: str, path: Path, assignment: _Assignment) -> Any:
    """The key of a mapping or the number of a list's item, as ``target`` has them."""
    dotted = ".".join(map(printable, path))
    if isinstance(target, dict):
        return key
    if not isinstance(target, list):
        near = suggest(key, [target]) if isinstance(target, str) else ""
        raise UserError(f"{assignment.shown}: {dotted} is {target!r}, which has no keys.{near}")
    if not (key.isdecimal() and len(key) < 10 and int(key) < len(target)):
        has = f"has items 0 to {len(target) - 1}" if target else "is an empty list"
        raise UserError(f"{assignment.shown}: {dotted} {has}, received {key!r}")
    return int(key)


def _read(assignment: _Assignment) -> Any:
    """The value. Plain text is taken as it stands, without comments and with its line breaks."""
    text = assignment.text
    try:
        node = compose(text)
    except NotYAML as error:
        raise UserError(
            f"{assignment.shown}: the value is not valid YAML: {error}; text that YAML reads "
            "otherwise needs quotes within the shell's"
        ) from None
    bare = isinstance(node, yaml.ScalarNode) and node.style is None
    if node is None or (bare and not text.startswith(_MARKS)):
        node = plain_scalar(text)
    return Builder(assignment.shown, has_lines=False).build(node)
