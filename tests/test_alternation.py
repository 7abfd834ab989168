"""Sides of a benchmark take turns, and the threads of one do not disturb the time of the next."""

from __future__ import annotations

import pytest

from resnet_fit.errors import RunFailed
from resnet_fit.reports.alternation import Side, alternate

SLEEPER = """
import sys, time
from resnet_fit.reports.alternation import serve

serve(lambda: time.sleep(float(sys.argv[2])))
"""


class Counted:
    """A side that takes a second more each time it works."""

    def __init__(self, name: str, calls: list[str]) -> None:
        self.name, self.calls, self.closed = name, calls, False
        self.seconds = 0.0

    def measure(self) -> float:
        self.calls.append(self.name)
        self.seconds += 1
        return self.seconds

    def close(self) -> None:
        self.closed = True


def test_each_side_works_twice_in_a_turn_and_the_second_time_counts():
    calls: list[str] = []
    sides = {name: Counted(name, calls) for name in "ab"}
    assert alternate(sides, 3) == {"a": 4.0, "b": 4.0}  # the median of 2, 4 and 6
    assert calls == ["a", "a", "b", "b"] * 3
    assert all(side.closed for side in sides.values())


def test_processes_are_timed_by_themselves(tmp_path):
    script = tmp_path / "sleeper.py"
    script.write_text(SLEEPER)
    seconds = alternate({name: Side(str(script), [name]) for name in ("0.01", "0.2")}, 3)
    assert 0.01 <= seconds["0.01"] < 0.2 <= seconds["0.2"] < 0.5


def test_a_side_that_dies_is_told(tmp_path):
    script = tmp_path / "dies.py"
    script.write_text("raise SystemExit(3)")
    with pytest.raises(RunFailed, match=r"some work: the process died \(exit 3\)"):
        alternate({"dies": Side(str(script), ["some", "work"])}, 1)


def test_a_side_that_dies_can_be_left_out(tmp_path):
    dies, works = tmp_path / "dies.py", tmp_path / "works.py"
    dies.write_text("raise SystemExit(3)")
    works.write_text(SLEEPER)
    sides = {"dies": Side(str(dies), []), "works": Side(str(works), ["0.01"])}
    assert list(alternate(sides, 2, without_failed=True)) == ["works"]
