"""Files are whole or not there, JSON is JSON, names are told, a full disk with its place."""

from __future__ import annotations

import errno
import json
import math

import pytest

from resnet_fit.cli import main
from resnet_fit.files import (
    finite,
    is_locked,
    json_text,
    lock,
    readable,
    write_json,
    write_text,
)


def test_what_json_does_not_have_is_null(tmp_path):
    value = {"a": [1.5, math.nan], "b": {"c": -math.inf}, "d": (math.inf, "NaN", 3, None, True)}
    plain = {"a": [1.5, None], "b": {"c": None}, "d": [None, "NaN", 3, None, True]}
    assert json.loads(json_text(value)) == json.loads(json_text(value, None)) == plain
    write_json(tmp_path / "value.json", value)
    assert json.loads((tmp_path / "value.json").read_text()) == plain


def test_what_is_finite_stays_the_same():
    value = {"a": [1.5, (2, 3)], "b": {"c": "x", "d": None}}
    assert finite(value) == value


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
    value = {"caf\udce9": ["caf\udce9.jpg", "é", "a\\udce9", "\n"]}
    write_json(tmp_path / "a.json", value)
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == value
    assert "é" in (tmp_path / "a.json").read_text(encoding="utf-8")


def test_on_a_file_system_without_locks_a_run_begins_and_says_so(tmp_path, monkeypatch):
    def flock(file, how):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.warns(UserWarning, match=r"\.lock: this file system has no locks"), lock(tmp_path):
        pass
    assert not is_locked(tmp_path)


def test_another_error_of_a_lock_names_the_file(tmp_path, monkeypatch):
    def flock(file, how):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(OSError, match="Input/output error") as caught, lock(tmp_path):
        pass
    assert caught.value.filename == str(tmp_path / ".lock")


def test_what_a_checkpoint_keeps_of_infinity_is_read_again():
    text = json_text({"best": math.inf, "worst": [-math.inf]}, is_strict=False)
    assert json.loads(text) == {"best": math.inf, "worst": [-math.inf]}
