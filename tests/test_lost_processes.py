"""What goes wrong in one of several processes ends all of them, and each says where and why."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from launching import (
    CONFIG,
    PATIENCE,
    by_paddle,
    children,
    command,
    ended,
    run,
    side_by_side,
    start,
    training_of,
)

from resnet_fit.config.document import dump


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lost")
    (folder / "config.yaml").write_text(dump(CONFIG))
    return folder


# What is put before the program of each process.
FULL_DISK = """
import errno, os
import numpy as np
from resnet_fit import parallel
savez, saved = np.savez, []
def full(*arguments, **arrays):
    saved.append(arguments)
    if len(saved) == 6:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    savez(*arguments, **arrays)
np.savez = full
"""
IN_EPOCH_2 = """
import errno, os
from resnet_fit import parallel
from resnet_fit.data.loading import Loader
finished = Loader._finished
def faulty(self, arrays, epoch, batch):
    images, labels = finished(self, arrays, epoch, batch)
    if parallel.rank() == RANK and epoch == 1 and batch >= 12:
        images = FAULT
    return [images, labels]
Loader._finished = faulty
def fail(error):
    raise error
"""


def in_epoch_2(rank: int, fault: str) -> str:
    return IN_EPOCH_2.replace("RANK", str(rank)).replace("FAULT", fault)


def last_words(place: Path, name: str, prelude: str) -> tuple[list[int], list[str]]:
    """The exit codes of two processes, and the last line that each of them says."""
    words = [sys.executable, *training_of(place, name, prelude)]
    results = ended(side_by_side([place, place], words, machines=1))
    return [code for code, _ in results], [out.strip().splitlines()[-1] for _, out in results]


def last_step(folder: Path) -> int:
    return json.loads((folder / "checkpoints/last/state.json").read_text())["clock"]["step"]


@pytest.mark.slow
def test_a_full_disk_of_the_first_one_ends_both_and_leaves_the_checkpoint_before(place):
    codes, said = last_words(place, "full", FULL_DISK)
    assert codes == [1, 1]
    told = "resnet-fit: runs/full/checkpoints/last: the checkpoint could not be written (No space"
    assert said[0].startswith(told)
    assert said[1] == said[0]
    assert last_step(place / "runs/full") > 0
    run(command("--resume", "runs/full"), place)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rank", "fault", "told"),
    [
        (1, "fail(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), 'cache'))", "cache: No space"),
        (1, "fail(MemoryError())", "memory ran out in epoch 2 after step"),
        (0, "fail(TypeError('a bug\\nof mine'))", "TypeError: a bug"),
    ],
)
def test_an_error_in_one_process_is_told_by_the_other_too(place, rank, fault, told):
    name = f"error-{rank}-{len(fault)}"
    codes, said = last_words(place, name, in_epoch_2(rank, fault))
    assert codes[rank] == 1
    assert codes[1 - rank] == 4
    assert said[1 - rank].startswith(f"resnet-fit: process {rank} of 2: {told}")
    assert said[1 - rank].endswith("The last checkpoint is untouched")
    assert last_step(place / "runs" / name) > 0


@pytest.mark.slow
def test_nan_in_one_process_ends_both_alike_with_the_checkpoint_before(place):
    codes, said = last_words(place, "nan", in_epoch_2(1, "images * float('nan')"))
    assert codes == [1, 1]
    # Not by the loss: on a CPU ReLU makes 0 of NaN.
    assert "the training diverged: conv1.weight became NaN or infinite in epoch 2" in said[0]
    assert said[1] == said[0]
    assert "the last checkpoint, runs/nan/checkpoints/last, is of epoch 2, step" in said[0]
    assert json.loads((place / "runs/nan/metrics.jsonl").read_text().splitlines()[-1])["epoch"] == 1


@pytest.mark.slow
def test_one_that_is_killed_is_named_on_the_terminal(place):
    """The first process says it, and Paddle's launcher shows what that one writes."""
    words = training_of(place, "killed")
    process = start(by_paddle(place, *words, "--set=training.epochs=40"), place)
    while not (place / "runs/killed/checkpoints/last").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    os.kill(children(process.pid)[1], signal.SIGKILL)
    begun = time.monotonic()
    out, _ = process.communicate(timeout=PATIENCE)
    assert time.monotonic() - begun < 15
    assert process.returncode
    assert "resnet-fit: process 1 of 2 has ended without a message: it was killed" in out


# Gloo's sum fails after 30 seconds in which a process does not come to it.
BUSY = """
import time
from resnet_fit.runtime import prepare_environment
prepare_environment()
from resnet_fit import parallel
from resnet_fit.callbacks import History
class Slow(History):
    phase = "record"
    def on_train_batch_end(self, step, logs=None):
        super().on_train_batch_end(step, logs)
        if self.clock.epoch == 1 and step == 3 and parallel.is_first():
            time.sleep(SECONDS)
from resnet_fit.runs import callbacks
callbacks.History = Slow
"""


@pytest.mark.slow
def test_a_first_process_that_is_busy_for_long_is_waited_for(place):
    words = training_of(place, "busy", BUSY.replace("SECONDS", "32"))
    words = [sys.executable, *words, "--set=training.epochs=2"]
    for code, out in ended(side_by_side([place, place], words, machines=1)):
        assert code == 0, out
    summary = json.loads((place / "runs/busy/summary.json").read_text())
    assert summary["seconds"] > 32
    assert summary["epochs"] == 2


@pytest.mark.slow
def test_one_that_is_killed_while_it_is_busy_is_noticed(place):
    words = training_of(place, "busy-killed", BUSY.replace("SECONDS", "300"))
    first, other = side_by_side([place, place], [sys.executable, *words], machines=1)
    while not (place / "runs/busy-killed/environment.json").exists():
        assert first.poll() is None, ended([first, other])
        time.sleep(0.05)
    time.sleep(3)
    first.kill()
    begun = time.monotonic()
    _, (code, out) = ended([first, other])
    assert time.monotonic() - begun < 15
    assert code == 4
    assert "process 0 of 2 has ended without a message" in out
