"""What grows with the data and with the length of a training: time and memory.

    python benchmarks/growth.py [--quick] [--folder DIR]

``listing``: image folders of 1,000 classes and up to 1.3 million (empty) files, listed by a new
process each time: seconds and peak memory. ``training``: a tiny net on digits for 10 to 1,000
epochs, with all that a run writes: seconds per step and per epoch (evaluation, logs and checkpoint
included) at a run's end against its beginning, and peak memory against that of the shortest run.

What is made in DIR, or where temporary files go, is deleted at the end and when it is stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from alternate import WORKER, machine, report

CLASSES = 1000
FILES = (1_000, 10_000, 100_000, 1_000_000, 1_300_000)
EPOCHS = (10, 100, 1000)
# So many epochs are a run's beginning and its end.
SPAN = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="to 100,000 files and 100 epochs")
    parser.add_argument("--folder", help="where to make folders and runs")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the blocks below
    print(machine())
    figures: dict[str, float] = {}
    with TemporaryDirectory(dir=options.folder) as place:
        figures |= listing(Path(place), FILES[:3] if options.quick else FILES)
        figures |= training(Path(place), EPOCHS[:2] if options.quick else EPOCHS)
    report("growth", **figures)


def listing(place: Path, counts: tuple[int, ...]) -> dict[str, float]:
    """List folders that get fuller and fuller."""
    root, made = place / "photos", 0
    for count in counts:
        add_files(root, made, count)
        made = count
        found = measured("list", root)
        assert found["images"] == count
        print(f"{count:9,} files: {found['seconds']:6.2f} s, {found['peak_mb']:4.0f} MB")
    return {
        "files": counts[-1],
        "listing_seconds": found["seconds"],
        "listing_peak_mb": found["peak_mb"],
    }


def add_files(root: Path, begin: int, end: int) -> None:
    """Make empty files number ``begin`` to ``end``, dealt to the classes in turn."""
    for label in range(CLASSES):
        folder = root / f"n{label:08}"
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
        for number in range(begin + label, end, CLASSES):
            name = f"{folder.name}_{number}.JPEG"
            os.close(os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=handle))
        os.close(handle)


def training(place: Path, lengths: tuple[int, ...]) -> dict[str, float]:
    """Train for longer and longer."""
    peaks = {}
    for epochs in lengths:
        found = measured("train", place / "runs", epochs)
        peaks[epochs] = found["peak_mb"]
        print(
            f"{epochs:5} epochs: {found['step_ms']:5.1f} ms a step, {found['epoch_ms']:6.1f} ms an "
            f"epoch at the end, {found['step_growth']:.2f} and {found['epoch_growth']:.2f} times "
            f"those of the beginning; {found['peak_mb']:4.0f} MB"
        )
    return {
        "epochs": lengths[-1],
        "step_growth": found["step_growth"],
        "epoch_growth": found["epoch_growth"],
        "memory_growth": peaks[lengths[-1]] / peaks[lengths[0]],
    }


def measured(*work: object) -> dict[str, Any]:
    """What a new process that does the work says of it."""
    command = [sys.executable, __file__, WORKER, *map(str, work)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def worker(what: str, *arguments: str) -> None:
    found = _list(*arguments) if what == "list" else _train(*arguments)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(found | {"peak_mb": peak}))


def _list(root: str) -> dict[str, float]:
    from resnet_fit.data.datasets.folder import scan

    started = time.perf_counter()
    dataset = scan(Path(root))
    return {"seconds": time.perf_counter() - started, "images": len(dataset)}


def _train(place: str, epochs: str) -> dict[str, float]:
    from resnet_fit.runtime import prepare_environment

    prepare_environment()
    from resnet_fit import fit, parse_config

    config = parse_config(
        {
            "model": {"depth": [1, 1], "stem": "cifar", "width": 8},
            "data": {"name": "digits", "batch_size": 64, "limit": 256},
            "optimizer": {"name": "momentum", "learning_rate": 0.01},
            "training": {"epochs": int(epochs)},
        }
    )
    folder = fit(config, place, epochs).folder
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = rows[0]["step"]
    step = [1000 * row["train_seconds"] / steps for row in rows]
    epoch = [1000 * (row["seconds"] - before["seconds"]) for before, row in pairwise(rows)]
    last_step, last_epoch = (statistics.median(values[-SPAN:]) for values in (step, epoch))
    first_step, first_epoch = (statistics.median(values[:SPAN]) for values in (step, epoch))
    return {
        "step_ms": last_step,
        "epoch_ms": last_epoch,
        "step_growth": last_step / first_step,
        "epoch_growth": last_epoch / first_epoch,
    }


if __name__ == "__main__":
    if sys.argv[1:2] == [WORKER]:
        worker(*sys.argv[2:])
    else:
        main()
