"""Peak memory of training ResNet-18 at 32 px: this library, Paddle as installed, PyTorch.

    python benchmarks/memory.py [--quick]

The most that a process has held (VmHWM of Linux), imports and all, after a few training steps at
one batch size. Sides are those of `benchmarks/backends.py`; each measurement is a process of its
own.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

from alternate import WORKER, machine, report
from backends import UNTOUCHED, make_step, ratios, side_names

STEPS = 3  # the first builds what the optimizer keeps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two small batch sizes, 2 rounds")
    quick = parser.parse_args().quick
    print(machine())
    found: dict[str, float] = {}
    for batch in (16, 32) if quick else (32, 128, 256):
        held: dict[str, list[float]] = {side: [] for side in side_names()}
        for _ in range(2 if quick else 3):
            for side, values in held.items():
                values.append(peak(side, batch))
        medians = {side: statistics.median(values) for side, values in held.items()}
        for side, median in medians.items():
            print(f"resnet18_cifar batch {batch:4} {side:11} {median / 1e6:8.0f} MB")
        found |= ratios(f"batch{batch}", medians)
    report("memory", **found)


def peak(side: str, batch: int) -> float:
    """Bytes that a new process of one side has held at most."""
    left_out = UNTOUCHED if side == "paddle" else {}
    done = subprocess.run(
        [sys.executable, __file__, WORKER, side, str(batch)],
        env={name: value for name, value in os.environ.items() if name not in left_out},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    return float(done.stdout.split()[-1])


def worker(side: str, batch: int) -> None:
    step = make_step(side, "resnet18_cifar", batch)
    for _ in range(STEPS):
        step()
    with open("/proc/self/status", encoding="utf-8") as lines:
        (kilobytes,) = (line.split()[1] for line in lines if line.startswith("VmHWM"))
    print(int(kilobytes) * 1024)


if __name__ == "__main__":
    if sys.argv[1:2] == [WORKER]:
        worker(sys.argv[2], int(sys.argv[3]))
    else:
        main()
