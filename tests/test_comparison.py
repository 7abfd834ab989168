"""Each "yes" of the page on other libraries names a test that is there."""

from __future__ import annotations

import ast
import re

import pytest
from conftest import REPOSITORY

PAGE = (REPOSITORY / "docs/comparison.md").read_text(encoding="utf-8")
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)
FEATURES = re.findall(r"^\| ([^|]+) \| ([^|]+) \|(?: [^|]+ \|){6}$", PAGE, re.M)


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_named_test_exists(file, name):
    tree = ast.parse((REPOSITORY / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(("feature", "ours"), FEATURES)
def test_what_we_have_is_shown_by_a_test_and_the_rest_is_admitted(feature, ours):
    assert re.fullmatch(r"yes, `tests/[\w/]+\.py::test_\w+`", ours)


def test_every_row_is_looked_at():
    assert len(FEATURES) == 12
    assert len(NAMED) >= 15
