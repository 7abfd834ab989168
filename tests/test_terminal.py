"""Standard output and error, that may be closed, full, or unable to show a name."""

from __future__ import annotations

import io
import os
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path

import pytest

from resnet_fit.errors import Interrupted, RunFailed, UserError, command, first_line, told
from resnet_fit.terminal import (
    OutputClosed,
    command_console,
    complain,
    no_standard_error,
    note,
    recording,
    say,
    training_console,
)

MARKUP = "runs [old]/[red]x[/y] :cat:"


def lines(file):
    return [line[21:] for line in file.read_text().splitlines()]


@contextmanager
def closed_pipe():
    """Standard output is a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", encoding="utf-8") as stream, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        yield
        stream.flush()  # as Python does when it ends


@pytest.mark.parametrize("console", [training_console, command_console])
def test_names_are_no_markup(capsys, console):
    from rich.table import Table

    console().print(MARKUP)
    table = Table("class")
    table.add_row(MARKUP)
    console().print(table)
    output = capsys.readouterr().out
    assert output.startswith(f"{MARKUP}\n")
    assert output.count(MARKUP) == 2


def test_a_training_goes_on_when_its_output_is_closed(capsys, tmp_path):
    with recording() as log, closed_pipe():
        log.open(tmp_path / "run.log")
        say("one")
        training_console().print("two")
        say("three")
        print("of somebody else's callback")
    told = "standard output: Broken pipe; the run goes on, and its run.log has these lines"
    assert capsys.readouterr().err == f"resnet-fit: {told}\n"
    assert lines(tmp_path / "run.log") == ["one", told, "three"]


def test_another_command_ends_quietly():
    with closed_pipe(), pytest.raises(OutputClosed):
        command_console().print("one")


def test_another_command_says_what_else_is_wrong(monkeypatch):
    with open("/dev/full", "w", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with pytest.raises(RunFailed, match="standard output: No space left on device"):
            command_console().print("one")


@pytest.mark.parametrize("stream", [None, io.StringIO()])
def test_streams_that_are_not_there(monkeypatch, stream):
    if stream is not None:
        stream.close()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    say("one")
    note("two")
    training_console().print("three")


def test_a_signal_amid_a_write_to_the_same_stream_harms_nothing(monkeypatch, tmp_path):
    class Busy(io.StringIO):
        def write(self, text):
            raise RuntimeError("reentrant call inside <_io.BufferedWriter>")  # as Python does

    monkeypatch.setattr(sys, "stderr", Busy())
    with recording() as log:
        log.open(tmp_path / "run.log")
        note("stops after this batch")
    assert lines(tmp_path / "run.log") == ["stops after this batch"]


def test_a_name_that_the_output_cannot_show(monkeypatch):
    bytes_ = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(bytes_, encoding="ascii"))
    say("grün \udcff")
    training_console().print("grün \udcff")
    assert bytes_.getvalue() == b"gr\\xfcn \\udcff\n" * 2


def test_a_file_gets_no_escape_codes_whatever_the_environment_says(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    console = training_console()
    console.print("plain", style="red")
    assert not console.is_terminal
    assert capsys.readouterr().out == "plain\n"


def test_standard_error_is_hidden_from_c_code_too(capfd):
    with no_standard_error():
        os.write(2, b"hidden")
    os.write(2, b"shown")
    assert capfd.readouterr().err == "shown"


def run_that_ends_with(error, file):
    with recording() as log:
        say("before the folder is there")
        log.open(file)
        note("stops after this batch")
        raise error


def test_the_log_has_what_was_said_and_how_it_ended(tmp_path, capsys):
    file = tmp_path / "run.log"
    with pytest.raises(RunFailed):
        run_that_ends_with(RunFailed("the loss became nan"), file)
    complain("only said")
    assert lines(file) == [
        "before the folder is there",
        "stops after this batch",
        "error: the loss became nan",
    ]
    output = capsys.readouterr()
    assert output.out == "before the folder is there\n"
    assert output.err == "resnet-fit: stops after this batch\nresnet-fit: only said\n"


def test_an_error_that_nobody_foresaw_is_in_the_log_as_a_whole(tmp_path):
    file = tmp_path / "run.log"
    with pytest.raises(ZeroDivisionError):
        run_that_ends_with(ZeroDivisionError("by zero"), file)
    assert lines(file)[2] == "error: Traceback (most recent call last):"
    assert lines(file)[-1] == "ZeroDivisionError: by zero"


def test_warnings_are_in_the_log_and_shown_as_ever(tmp_path):
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        with recording() as log:
            log.open(tmp_path / "run.log")
            with recording() as other:  # a run within a run, which is rare, has its own
                other.open(tmp_path / "other.log")
            warnings.warn("data are slow", stacklevel=1)
        warnings.warn("after it", stacklevel=1)
    assert [str(warning.message) for warning in shown] == ["data are slow", "after it"]
    assert lines(tmp_path / "run.log") == ["warning: data are slow"]
    assert lines(tmp_path / "other.log") == []


def test_a_log_that_waits_is_the_same_for_the_run(tmp_path):
    with recording() as outer:
        say("set training.epochs=1")
        with recording() as log:
            assert log is outer
            log.open(tmp_path / "run.log")
    assert lines(tmp_path / "run.log") == ["set training.epochs=1"]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (UserError("a mistake"), "a mistake"),
        (RunFailed("failed"), "failed"),
        (OSError(28, "No space left on device", "runs/x"), "runs/x: No space left on device"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (KeyboardInterrupt(), "interrupted"),
        (ZeroDivisionError(), None),
    ],
)
def test_told(error, text):
    assert told(error) == text


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("one\ntwo"), "ValueError: one"),
        (RuntimeError("\n\n  (InvalidArgument) one\n  two"), "RuntimeError: (InvalidArgument) one"),
        (ZeroDivisionError(), "ZeroDivisionError"),
    ],
)
def test_the_first_line_of_an_error_that_nobody_foresaw(error, text):
    assert first_line(error) == text


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("runs/q1", "runs/q1"),
        ("my runs/q1", "'my runs/q1'"),
        ("it's [old]; rm x", "'it'\"'\"'s [old]; rm x'"),
        ("-x", "./-x"),
        ("/-x", "/-x"),
    ],
)
def test_suggested_commands_can_be_copied(path, words):
    assert command("--resume", Path(path)) == f"resnet-fit --resume {words}"
    assert str(Interrupted(2, Path(path))).endswith(f"go on with: resnet-fit --resume {words}")
