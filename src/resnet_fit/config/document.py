"""Config files read with the place of every value, so that a mistake is shown where it stands."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

import yaml

from resnet_fit.config.registry import CHOICES
from resnet_fit.config.shipped import shipped_file
from resnet_fit.config.yaml12 import Builder, Dumper, NotYAML, Path, compose
from resnet_fit.errors import UserError

STDIN = "-"

# Sections whose keys depend on their ``name``, and the name that each has by default. Another name
# starts the section afresh: a learning rate found for SGD means nothing to Adam.
DEFAULT_NAMES = {key: choice.default for key, choice in CHOICES.items() if not choice.keeps}


@dataclass
class Document:
    """A nested mapping, and for each path in it the place (``file:line``) that set it.

    ``texts`` keeps the text of values, for a schema that wants text where YAML sees a number.
    """

    value: dict[str, Any]
    places: dict[Path, str] = field(default_factory=dict)
    texts: dict[Path, str] = field(default_factory=dict)

    def take_as_text(self, path: Path) -> bool:
        """Use the text of the value at ``path``; false where none is kept."""
        if path not in self.texts:
            return False
        target: Any = self.value
        for step in path[:-1]:
            target = target[step]
        target[path[-1]] = self.texts.pop(path)
        return True

    def replace(self, path: Path, place: str) -> None:
        """Note that ``place`` set all there is at ``path``: what was below is no longer there."""
        for known in (self.places, self.texts):
            for old in [p for p in known if p[: len(path)] == path]:
                del known[old]
        self.places[path] = place

    def place(self, path: Path) -> str:
        """The place of a path, or of the nearest part that contains it."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, "")


@dataclass(frozen=True)
class _Source:
    """A config's text, the name that messages give it, and the folder its ``base`` starts from."""

    name: str
    text: str
    folder: FilePath


def read_document(file: FilePath) -> Document:
    """Read a YAML mapping; ``-`` is the standard input.

    ``base: other.yaml`` starts from that file, or from the config of that name that comes with
    this library, and changes what follows.

    Raises UserError, naming file and line, for whatever is not a plain mapping.
    """
    if str(file) == STDIN:
        return _read(_standard_input(), seen=())
    return _read(_file(file), seen=(file.resolve(),))


def _standard_input() -> _Source:
    if sys.stdin is None:
        raise UserError("<stdin>: closed; expected a config in YAML")
    return _Source("<stdin>", _decoded(sys.stdin.buffer.read(), "<stdin>"), FilePath())


def _file(file: FilePath) -> _Source:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from None
    # What a shell passes as a file, such as <(command), lies in no folder of the user's.
    folder = file.parent if file.is_file() else FilePath()
    return _Source(str(file), _decoded(content, str(file)), folder)


def _decoded(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{name}: not a text file in UTF-8 (byte {error.start})") from None


def _read(source: _Source, seen: tuple[FilePath, ...]) -> Document:
    return with_base(_parse(source), source.folder, seen)


def with_base(
    document: Document, folder: FilePath = FilePath(), seen: tuple[FilePath, ...] = ()
) -> Document:
    """A document laid over the file or shipped config that its ``base`` names, where it has one.

    Args:
        document: a mapping.
        folder: where a relative ``base`` starts from; the working directory by default.
        seen: the files that led here.

    Raises:
        UserError: there is no such file, or it is one of ``seen``.
    """
    if "base" not in document.value:
        return document
    base = document.value.pop("base")
    place = document.places.pop(("base",), "")
    where = f"{place}: base" if place else "base"
    if not isinstance(base, str):
        raise UserError(f"{where}: expected the name of a YAML file, received {base!r}")
    file = FilePath(os.path.realpath(folder / base))
    if file in seen:
        raise UserError(f"{where}: {base} leads back to this file")
    if not file.is_file():
        found = shipped_file(base)
        if found is None:
            raise UserError(f"{where}: there is no file {file}")
        file = found
    below = _read(_file(file), (*seen, file))
    value = merge(below.value, document.value)
    left = {path: place for path, place in below.places.items() if _is_in(value, path)}
    places = {**left, **document.places, (): document.place(())}
    return Document(value, places, document.texts)


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


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """``above`` laid over ``below``: mappings merge key by key, all else is replaced."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            kind = old.get("name", DEFAULT_NAMES.get(key))
            afresh = key in DEFAULT_NAMES and value.get("name", kind) != kind
            value = value if afresh else merge(old, value)
        merged[key] = value
    return merged


def _parse(source: _Source) -> Document:
    try:
        root = compose(source.text)
    except NotYAML as error:
        place = source.name if error.line is None else f"{source.name}:{error.line}"
        raise UserError(f"{place}: not valid YAML: {error}") from None
    if not isinstance(root, yaml.MappingNode):
        what = (
            "nothing"
            if root is None
            else "a list"
            if isinstance(root, yaml.SequenceNode)
            else "one value"
        )
        raise UserError(
            f"{source.name}: expected sections such as 'model:' and 'data:', received {what}"
        )
    builder = Builder(source.name)
    return Document(builder.build(root), builder.places)


def dump(value: dict[str, Any]) -> str:
    """A config as YAML text that `read_document` reads back unchanged."""
    return yaml.dump(
        value, Dumper=Dumper, sort_keys=False, default_flow_style=None, allow_unicode=True
    )
