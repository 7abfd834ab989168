"""Values from Python code, or from another reader of YAML, as this project reads them in a file."""

from __future__ import annotations

import os
from datetime import date, datetime
from typing import Any

import yaml

from resnet_fit.config.document import Document, with_base
from resnet_fit.config.yaml12 import TAG, Builder, Path, plain_scalar
from resnet_fit.errors import UserError

_NUMBERS = (TAG + "int", TAG + "float")


def from_python(value: dict[str, Any]) -> Document:
    """A document of a nested dictionary.

    Text that YAML 1.1 does not take for a number and 1.2 does, such as ``5e-4``, is a number, as
    what PyYAML's `safe_load` returns has it. NumPy's numbers and arrays, tuples and paths become
    what YAML has for them. A relative ``base`` starts from the working directory.

    Raises:
        UserError: it is no dictionary, or there is no such ``base``.
    """
    if not isinstance(value, dict):
        raise UserError(f"config: expected a dictionary of sections, received {value!r}")
    document = Document({})
    document.value = _plain(value, (), document.texts)
    return with_base(document)


def _plain(value: Any, path: Path, texts: dict[Path, str]) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, dict):
        return {key: _plain(item, (*path, key), texts) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, (*path, i), texts) for i, item in enumerate(value)]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, date) and not isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, str) and _is_new_number(value):
        texts[path] = value
        return Builder("").build(plain_scalar(value))
    return value


def _is_new_number(text: str) -> bool:
    """Whether text is a number in YAML 1.2 and none in 1.1."""
    by_1_1 = yaml.SafeLoader("").resolve(yaml.ScalarNode, text, (True, False))
    return by_1_1 == TAG + "str" and plain_scalar(text).tag in _NUMBERS
