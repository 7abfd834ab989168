"""What a run said, in a file that holds whole lines whatever happens."""

from __future__ import annotations

import resource
import signal

import pytest

from resnet_fit.run_log import RunLog

TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  "


@pytest.fixture
def complaints():
    return []


@pytest.fixture
def log(complaints):
    log = RunLog(complaints.append)
    yield log
    log.close()


def texts(file):
    """The lines without their times, which all must have."""
    lines = file.read_text().splitlines(keepends=True)
    assert all(line[4] + line[7] + line[13] + line[16] == "--::" for line in lines)
    assert all(line.endswith("\n") for line in lines)
    return [line[21:-1] for line in lines]


def test_each_line_is_there_at_once_and_has_its_time(log, tmp_path):
    file = tmp_path / "run.log"
    log.open(file)
    for number in range(3):
        log.write(f"line {number}")
        assert texts(file) == [f"line {i}" for i in range(number + 1)]
    log.write("one\ntwo")
    assert texts(file)[3:] == ["one", "two"]


def test_lines_of_before_it_is_open_are_not_lost(log, tmp_path):
    log.write("early")
    log.open(tmp_path / "run.log")
    log.write("late")
    assert texts(tmp_path / "run.log") == ["early", "late"]


def test_it_goes_on_after_what_is_there(log, tmp_path, complaints):
    file = tmp_path / "run.log"
    for word in ("first", "second"):
        log.open(file)
        log.write(word)
        log.close()
    assert texts(file) == ["first", "second"]
    assert complaints == []


def test_half_a_line_of_a_power_cut_is_ended(log, tmp_path):
    file = tmp_path / "run.log"
    file.write_text("2026-01-01 00:00:00  half")
    log.open(file)
    log.write("next")
    assert texts(file) == ["half", "next"]


def test_names_of_any_bytes(log, tmp_path):
    log.open(tmp_path / "run.log")
    log.write("runs/\udcff")
    assert texts(tmp_path / "run.log") == ["runs/\\udcff"]


def test_a_place_that_cannot_be_written_is_told_once(log, tmp_path, complaints):
    log.open(tmp_path)
    log.write("line")
    log.write("line")
    assert complaints == [f"{tmp_path}: Is a directory; the run goes on without this log"]


def test_a_full_disk_is_told_once_and_leaves_whole_lines(log, tmp_path, complaints):
    file = tmp_path / "run.log"
    log.open(file)
    log.write("before")
    usual = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + 10, limits[1]))
    try:
        log.write("there is no room for this line")
        log.write("nor for this one")
        assert texts(file) == ["before"]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, usual)
    assert complaints == [f"{file}: File too large; the run goes on without this log"]
    log.write("after")
    assert texts(file)[1:] == ["there is no room for this line", "nor for this one", "after"]
