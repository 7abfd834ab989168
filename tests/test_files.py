"""Files are whole or not there, JSON is JSON, and a full disk is told with the place."""

from __future__ import annotations

import json
import math

import pytest

from resnet_fit.cli import main
from resnet_fit.files import finite, json_text, write_json, write_text


def test_what_json_does_not_have_is_null(tmp_path):
    value = {"a": [1.5, math.nan], "b": {"c": -math.inf}, "d": (math.inf, "NaN", 3, None, True)}
    plain = {"a": [1.5, None], "b": {"c": None}, "d": [None, "NaN", 3, None, True]}
    assert json.loads(json_text(value)) == json.loads(json_text(value, None)) == plain
    write_json(tmp_path / "value.json", value)
    assert json.loads((tmp_path / "value.json").read_text()) == plain


def test_what_is_finite_stays_the_same():
    value = {"a": [1.5, (2, 3)], "b": {"c": "x", "d": None}}
    assert finite(value) == value


def test_a_name_that_is_no_text_is_the_same_when_it_is_read_again(tmp_path):
    write_json(tmp_path / "names.json", ["caf\udce9.jpg", "é"])
    assert json.loads((tmp_path / "names.json").read_text("utf-8")) == ["caf\udce9.jpg", "é"]


def test_an_error_that_names_no_file_names_the_one_that_is_written(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        write_text(tmp_path / "file", "text")
    assert caught.value.filename == str(tmp_path / "file")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_told_with_the_place(tiny, tmp_path, write_yaml, monkeypatch, capsys):
    def full(_):
        raise OSError(28, "No space left on device")

    file = write_yaml(tiny)
    monkeypatch.setattr("os.fsync", full)
    assert main(["--config", str(file), "--output", str(tmp_path), "--name", "run"]) == 1
    place = tmp_path / "run" / "config.yaml"
    assert capsys.readouterr().err == f"resnet-fit: {place}: No space left on device\n"
