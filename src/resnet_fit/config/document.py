"""YAML read with the place of every value, so that a mistake can be shown where it stands.

Scalars follow YAML 1.2: ``1e-3`` is a number and ``off`` is text, where PyYAML's own rules
(YAML 1.1) make text of the first and ``False`` of the second.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

import yaml

from resnet_fit.errors import UserError

Path = tuple[str | int, ...]

# Sections whose other settings belong to their ``name``, and the name that leaving it out means.
# Another name starts such a section afresh: a rate found for SGD means nothing to Adam.
Kinds = Mapping[str, str | None]


class _Loader(yaml.SafeLoader):
    """The safe loader, with the scalar rules of YAML 1.2."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


_NUMBER_START = list("-+0123456789.")
for _tag, _pattern, _first in (
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"^[-+]?[0-9]+$", _NUMBER_START),
    ("float", r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", _NUMBER_START),
    ("float", r"^(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$", list("-+.")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)


class _Dumper(yaml.SafeDumper):
    """The safe dumper, quoting what the loader above would take for something else."""

    yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    """Control characters and Unicode's line breaks are escaped: bare, they read otherwise."""
    style = None if text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


@dataclass
class Document:
    """A nested mapping, and for each path in it the place (``file:line``) that set it.

    ``overrides`` keeps the text of each override, for a schema that wants text where YAML sees a
    number.
    """

    value: dict[str, Any]
    places: dict[Path, str] = field(default_factory=dict)
    overrides: dict[Path, str] = field(default_factory=dict)

    def take_as_text(self, path: Path) -> bool:
        """Use an override's own text at ``path``; false where no override set it."""
        if path not in self.overrides:
            return False
        target: Any = self.value
        for step in path[:-1]:
            target = target[step]
        target[path[-1]] = self.overrides.pop(path)
        return True

    def replace(self, path: Path, place: str) -> None:
        """Note that ``place`` set all there is at ``path``: what was below is no longer there."""
        for known in (self.places, self.overrides):
            for old in [p for p in known if p[: len(path)] == path]:
                del known[old]
        self.places[path] = place

    def place(self, path: Path) -> str:
        """The place of a path, or of the nearest part that contains it."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, "")


def read_document(file: FilePath, kinds: Kinds) -> Document:
    """Read a YAML mapping. ``base: other.yaml`` starts from that file and changes what follows.

    Raises UserError, naming file and line, for whatever is not a plain mapping.
    """
    return _read(file, kinds, seen=())


def _read(file: FilePath, kinds: Kinds, seen: tuple[FilePath, ...]) -> Document:
    document = _parse(file)
    if "base" not in document.value:
        return document
    base = document.value.pop("base")
    where = document.places.pop(("base",))
    if not isinstance(base, str):
        raise UserError(f"{where}: base: expected the name of a YAML file, received {base!r}")
    base_file = (file.parent / base).resolve()
    if base_file in (*seen, file.resolve()):
        raise UserError(f"{where}: base: {base} leads back to this file")
    if not base_file.is_file():
        raise UserError(f"{where}: base: there is no file {base_file}")
    below = _read(base_file, kinds, (*seen, file.resolve()))
    value = merge(below.value, document.value, kinds)
    left = {path: place for path, place in below.places.items() if _is_in(value, path)}
    return Document(value, {**left, **document.places, (): str(file)})


def _is_in(value: Any, path: Path) -> bool:
    for step in path:
        if isinstance(value, dict):
            known = step in value
        else:
            known = isinstance(value, list) and isinstance(step, int) and step < len(value)
        if not known:
            return False
        value = value[step]
    return True


def merge(below: dict[str, Any], above: dict[str, Any], kinds: Kinds) -> dict[str, Any]:
    """``above`` laid over ``below``: mappings merge key by key, all else is replaced."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            kind = old.get("name", kinds.get(key))
            afresh = key in kinds and value.get("name", kind) != kind
            value = value if afresh else merge(old, value, {})
        merged[key] = value
    return merged


def _parse(file: FilePath) -> Document:
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not a text file in UTF-8 (byte {error.start})") from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from None
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise UserError(f"{file}:{line}: not valid YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{file}: not valid YAML: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise UserError(f"{file}: not valid YAML: nested too deeply") from None
    if not isinstance(root, yaml.MappingNode):
        what = (
            "nothing"
            if root is None
            else "a list"
            if isinstance(root, yaml.SequenceNode)
            else "one value"
        )
        raise UserError(f"{file}: expected sections such as 'model:' and 'data:', received {what}")
    builder = _Builder(str(file))
    return Document(builder.build(root, ()), builder.places)


class _Builder:
    """Turns composed YAML nodes into plain values and remembers where each stood."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.places: dict[Path, str] = {(): file}
        self.open: list[int] = []

    def build(self, node: yaml.Node, path: Path) -> Any:
        self.places[path] = self.at(node) if path else self.file
        if id(node) in self.open or len(self.open) > 50 or len(self.places) > 20_000:
            raise UserError(f"{self.at(node)}: nested too deeply or too large for a config")
        self.open.append(id(node))
        try:
            if self.kind(node) == "map" and isinstance(node, yaml.MappingNode):
                return self.mapping(node, path)
            if self.kind(node) == "seq" and isinstance(node, yaml.SequenceNode):
                return [self.build(item, (*path, i)) for i, item in enumerate(node.value)]
            return self.scalar(node)
        finally:
            self.open.pop()

    def mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self.scalar(key_node) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                raise UserError(f"{self.at(key_node)}: expected a name as key, received {key!r}")
            child = (*path, key)
            if key in result:
                dotted = ".".join(map(str, child))
                raise UserError(f"{self.at(key_node)}: {dotted}: given twice")
            result[key] = self.build(value_node, child)
            self.places[child] = self.at(key_node)
        return result

    def scalar(self, node: yaml.Node) -> Any:
        kind = self.kind(node)
        try:
            if kind == "str":
                return node.value
            if kind == "null":
                return None
            if kind == "bool":
                return node.value.lower() == "true"
            if kind == "int":
                return int(node.value)
            if kind == "float":
                return float(re.sub(r"\.(?=[a-zA-Z])", "", node.value))
        except ValueError:
            raise UserError(f"{self.at(node)}: expected {kind}, received {node.value!r}") from None
        raise UserError(f"{self.at(node)}: expected text or a number, received YAML's {kind}")

    def kind(self, node: yaml.Node) -> str:
        """The standard type of a node; no other has a meaning in a config."""
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        if kind not in ("map", "seq", "str", "null", "bool", "int", "float"):
            raise UserError(f"{self.at(node)}: the YAML tag {node.tag} has no meaning in a config")
        return kind

    def at(self, node: yaml.Node) -> str:
        return f"{self.file}:{node.start_mark.line + 1}"


def override(document: Document, assignments: Sequence[str], kinds: Kinds) -> None:
    """Apply each ``a.b=value`` (the value in YAML) to a document, names before their keys."""
    for assignment in sorted(assignments, key=lambda a: not a.partition("=")[0].endswith(".name")):
        _override(document, assignment, kinds)


def _override(document: Document, assignment: str, kinds: Kinds) -> None:
    dotted, equals, text = assignment.partition("=")
    keys = [k.strip() for k in dotted.split(".")]
    if not equals or not all(keys):
        raise UserError(f"--set {assignment}: expected KEY=VALUE, such as training.epochs=5")
    target: Any = document.value
    path: Path = ()
    for i, key in enumerate(keys):
        step: str | int = key
        if isinstance(target, list):
            if not (key.isdigit() and int(key) < len(target)):
                raise UserError(
                    f"--set {assignment}: {'.'.join(map(str, path))} has items 0 to "
                    f"{len(target) - 1}, received '{key}'"
                )
            step = int(key)
        elif not isinstance(target, dict):
            raise UserError(
                f"--set {assignment}: {'.'.join(map(str, path))} is {target!r}, which has no keys"
            )
        path = (*path, step)
        if i == len(keys) - 1:
            break
        if isinstance(target, dict) and target.get(key) is None:
            target[key] = {}
        target = target[step]
    value = _read_value(text, assignment)
    section = str(path[0])
    if step == "name" and section in kinds and target.get("name", kinds[section]) != value:
        target.clear()
        document.replace(path[:-1], f"--set {dotted}")
    target[step] = value
    document.replace(path, f"--set {dotted}")
    document.overrides[path] = text


def _read_value(text: str, assignment: str) -> Any:
    """One value in YAML, as it stands on a command line."""
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UserError(f"--set {assignment}: the value is not valid YAML: {problem}") from None
    return None if node is None else _Builder(f"--set {assignment}").build(node, ("value",))


def dump(value: dict[str, Any]) -> str:
    """A config as YAML text that `read_document` reads back unchanged."""
    return yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, default_flow_style=None, allow_unicode=True
    )
