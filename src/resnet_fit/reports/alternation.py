"""Timing several sides of a comparison fairly: one process each, measured in turn, again and again.

A machine's speed drifts, and other processes come and go. Where sides take turns, such noise hits
all of them alike, and the median of the rounds leaves out single slow ones. In each turn a side
works twice, and the second time counts: threads of the side before it go on waiting for work for a
while, some for 200 ms, and keep cores busy meanwhile.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from resnet_fit.errors import RunFailed

# The first argument of a side's own process.
WORKER = "--worker"

Name = TypeVar("Name")


@dataclass
class Side:
    """One process that repeats one piece of work on request.

    Args:
        script: a file, or ``-mMODULE``, that answers ``--worker`` through `serve`.
        arguments: what to work on.
        environment: variables to set, or to remove where the value is None.

    Raises:
        RunFailed: from `measure`, if the process has died.
    """

    script: str
    arguments: Sequence[str]
    environment: Mapping[str, str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        variables = dict(os.environ)
        for name, value in self.environment.items():
            variables.pop(name, None)
            if value is not None:
                variables[name] = value
        self._process = subprocess.Popen(
            [sys.executable, self.script, WORKER, *self.arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=variables,
        )

    def measure(self) -> float:
        """Seconds that one piece of work took in the other process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):  # told below
            self._process.stdin.write("go\n")
            self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("seconds "):
                return float(line.split()[1])
        raise RunFailed(
            f"{' '.join(self.arguments)}: the process died (exit {self._process.wait()})"
        )

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()  # waits for its end and closes the pipes


def serve(work: Callable[[], object]) -> None:
    """The worker's half: do the work once to warm up, then once for every line on stdin."""
    work()
    for _ in sys.stdin:
        started = time.perf_counter()
        work()
        print(f"seconds {time.perf_counter() - started}", flush=True)


def alternate(
    sides: Mapping[Name, Side], rounds: int, *, without_failed: bool = False
) -> dict[Name, float]:
    """Median seconds of each side over ``rounds`` turns.

    Args:
        sides: the processes, which are ended afterwards.
        rounds: turns of each side.
        without_failed: leave out a side whose process dies, and go on with the others.

    Raises:
        RunFailed: if a process dies, unless ``without_failed``.
    """
    working = dict(sides)
    seconds: dict[Name, list[float]] = {name: [] for name in sides}
    try:
        for _ in range(rounds):
            for name, side in list(working.items()):
                try:
                    side.measure()
                    seconds[name].append(side.measure())
                except RunFailed:
                    if not without_failed:
                        raise
                    del working[name]
    finally:
        for side in sides.values():
            side.close()
    return {name: statistics.median(seconds[name]) for name in working}
