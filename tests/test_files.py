"""Files that are written whole, and names of files in them."""

import json

import pytest

from resnet_fit.files import readable, write_json


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("photos/café 1.jpg", "photos/café 1.jpg"),
        ("caf\udce9", r"caf\xe9"),
        ("a\nb\r\x1b[31m\u2028", r"a\nb\r\x1b[31m\u2028"),
        ("\ud800", r"\ud800"),
    ],
)
def test_names_are_shown_in_one_line_of_text(text, shown):
    assert readable(text) == shown
    readable(text).encode()


def test_json_gives_names_of_any_bytes_back(tmp_path):
    value = {"caf\udce9": ["é", "a\\udce9", "\n"]}
    write_json(tmp_path / "a.json", value)
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == value
    assert "é" in (tmp_path / "a.json").read_text(encoding="utf-8")
