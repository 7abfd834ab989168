"""YAML as configs use it: plain values only, each with the line where it stands.

Scalars follow YAML 1.2: ``1e-3`` is a number and ``off`` is text, where PyYAML's own rules
(YAML 1.1) make text of the first and ``False`` of the second.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from resnet_fit.errors import UserError

Path = tuple[str | int, ...]

TAG = "tag:yaml.org,2002:"
STANDARD = ("map", "seq", "str", "null", "bool", "int", "float")
# Of a config; anchors that name anchors can make a small file endlessly large.
MOST_LEVELS, MOST_VALUES = 50, 20_000

Pair = tuple[yaml.Node, yaml.Node]


class Loader(yaml.SafeLoader):
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
    Loader.add_implicit_resolver(TAG + _tag, re.compile(_pattern), _first)


class Dumper(yaml.SafeDumper):
    """The safe dumper, quoting what the loader above would take for something else."""

    yaml_implicit_resolvers = Loader.yaml_implicit_resolvers

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: Dumper, text: str) -> yaml.ScalarNode:
    """Control characters and Unicode's line breaks are escaped: bare, they read otherwise.

    A bare ``<<`` would be a merge key.
    """
    style = None if text.isprintable() and text != "<<" else '"'
    return dumper.represent_scalar(TAG + "str", text, style=style)


Dumper.add_representer(str, _represent_text)


class NotYAML(Exception):
    """Text that is not YAML, and the line of the mistake where that is known."""

    def __init__(self, problem: str, line: int | None) -> None:
        super().__init__(problem)
        self.line = line


def compose(text: str) -> yaml.Node | None:
    """The node that a text describes; None for one without any.

    Raises:
        NotYAML: there is none, or more than one.
    """
    try:
        return yaml.compose(text, Loader=Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise NotYAML(str(error.problem), mark.line + 1 if mark else 1) from None
    except yaml.YAMLError as error:
        raise NotYAML(str(error).splitlines()[0], None) from None
    except RecursionError:
        raise NotYAML("nested too deeply", None) from None


def plain_scalar(text: str) -> yaml.ScalarNode:
    """The node of a scalar without quotes."""
    tag = Loader("").resolve(yaml.ScalarNode, text, (True, False))
    mark = yaml.Mark("", 0, 0, 0, None, 0)
    return yaml.ScalarNode(tag, text, mark, mark)


class Builder:
    """Turns nodes into plain values, and remembers the place of each.

    Args:
        source: the name of the text, for messages.
        has_lines: whether places are ``source:line``, or ``source`` alone.
    """

    def __init__(self, source: str, has_lines: bool = True) -> None:
        self.source, self.has_lines = source, has_lines
        self.places: dict[Path, str] = {(): source}
        self._open: list[int] = []
        self._entries: dict[int, list[Pair]] = {}

    def build(self, node: yaml.Node, path: Path = ()) -> Any:
        """The value of a node that stands at ``path``.

        Raises:
            UserError: naming the place of what has no meaning in a config.
        """
        self.places[path] = self._at(node) if path else self.source
        self._enter(node)
        try:
            if self._kind(node) == "map" and isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            if self._kind(node) == "seq" and isinstance(node, yaml.SequenceNode):
                return [self.build(item, (*path, i)) for i, item in enumerate(node.value)]
            return self._scalar(node)
        finally:
            self._open.pop()

    def _enter(self, node: yaml.Node) -> None:
        too_large = len(self._open) > MOST_LEVELS or len(self.places) > MOST_VALUES
        if id(node) in self._open or too_large:
            raise UserError(f"{self._at(node)}: nested too deeply or too large for a config")
        self._open.append(id(node))

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in self._with_merged(node):
            key = self._scalar(key_node) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                raise UserError(f"{self._at(key_node)}: expected a name as key, received {key!r}")
            child = (*path, key)
            if key in result:
                dotted = ".".join(map(printable, child))
                raise UserError(f"{self._at(key_node)}: {dotted}: given twice")
            result[key] = self.build(value_node, child)
            self.places[child] = self._at(key_node)
        return result

    def _with_merged(self, node: yaml.MappingNode) -> list[Pair]:
        """The entries of a mapping, then those that ``<<`` adds: keys it does not have itself."""
        if id(node) in self._entries:
            return self._entries[id(node)]
        entries = [pair for pair in node.value if not _is_merge(pair[0])]
        merges = [pair for pair in node.value if _is_merge(pair[0])]
        if len(merges) > 1:
            raise UserError(f"{self._at(merges[1][0])}: <<: given twice; give a list: [*a, *b]")
        known = {key.value for key, _ in entries if isinstance(key, yaml.ScalarNode)}
        for _, value in merges:
            for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if not isinstance(source, yaml.MappingNode):
                    raise UserError(
                        f"{self._at(value)}: <<: expected a mapping with an anchor (*name), or a "
                        "list of such"
                    )
                self._enter(source)
                for key, item in self._with_merged(source):
                    if isinstance(key, yaml.ScalarNode) and key.value not in known:
                        known.add(key.value)
                        entries.append((key, item))
                self._open.pop()
        self._entries[id(node)] = entries
        return entries

    def _scalar(self, node: yaml.Node) -> Any:
        kind = self._kind(node)
        if kind == "str":
            return self._text(node)
        if kind == "null":
            return None
        try:
            if kind == "bool":
                return {"true": True, "false": False}[node.value.lower()]
            if kind == "int":
                return int(node.value)
            if kind == "float":
                return float(re.sub(r"\.(?=[a-zA-Z])", "", node.value))
        except (ValueError, KeyError):
            received = repr(node.value) if len(node.value) <= 60 else repr(node.value[:57]) + "..."
            raise UserError(f"{self._at(node)}: expected {kind}, received {received}") from None
        raise UserError(f"{self._at(node)}: expected text or a number, received YAML's {kind}")

    def _text(self, node: yaml.Node) -> str:
        """Text in which JSON's surrogate pairs are characters.

        Single surrogates stay if they are Python's for bytes of a file's name.
        """
        text = node.value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
        if re.search("[\ud800-\udc7f\udd00-\udfff]", text):
            raise UserError(f"{self._at(node)}: {node.value!r} holds half a character")
        return str(text)

    def _kind(self, node: yaml.Node) -> str:
        """The standard type of a node; no other has a meaning in a config."""
        kind = node.tag.removeprefix(TAG)
        if kind not in STANDARD:
            raise UserError(f"{self._at(node)}: the YAML tag {node.tag} has no meaning in a config")
        return kind

    def _at(self, node: yaml.Node) -> str:
        return f"{self.source}:{node.start_mark.line + 1}" if self.has_lines else self.source


def _is_merge(key: yaml.Node) -> bool:
    return isinstance(key, yaml.ScalarNode) and key.value == "<<" and key.style is None


def printable(part: object) -> str:
    """A part of a message, such that it stays on its line."""
    return str(part) if str(part).isprintable() else repr(part)
