"""Several machines, here two launchers on one, with a working folder each and no common disk."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import paddle
import pytest
from launching import (
    CONFIG,
    PHOTOS,
    Running,
    by_paddle,
    children,
    command,
    contents,
    different,
    ended,
    free_port,
    run,
    side_by_side,
    started,
    training_of,
)
from PIL import Image

from resnet_fit import parse_config
from resnet_fit.config.document import dump


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Of two machines, each with a copy of the config."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(dump(CONFIG))
    return [tmp_path / "first", tmp_path / "second"]


def launch(folders: list[Path], *words: str) -> list[Running]:
    """Paddle's launcher on each machine, as docs/many-devices.md says, one process each."""
    master = f"127.0.0.1:{free_port()}"
    options = {"nnodes": 2, "master": master, "nproc_per_node": 1}
    return [
        started(by_paddle(folder, *words, rank=rank, **options), folder)
        for rank, folder in enumerate(folders)
    ]


@pytest.mark.slow
def test_a_machine_is_lost_and_the_run_goes_on_to_the_last_bit(folders, tmp_path):
    first, second = folders
    words = training_of(first, "x")
    shutil.copy(first / "x.py", second)
    machines = launch(folders, *words)
    while not (first / "runs/x/checkpoints/last").exists():
        assert machines[0].poll() is None, ended(machines)
        time.sleep(0.05)
    for child in children(machines[1].pid):
        os.kill(child, signal.SIGKILL)
    (code, out), (other, _) = ended(machines)
    assert code
    assert other
    assert "resnet-fit: process 1 of 2 has ended without a message" in out
    assert not (second / "runs").exists()

    results = ended(launch(folders, "x.py", "--resume", "runs/x"))
    assert [code for code, _ in results] == [0, 0], results
    assert not (second / "runs").exists()
    run(command("--config", "first/config.yaml", "--name", "alone"), tmp_path)
    assert different(contents(first / "runs/x"), contents(tmp_path / "runs/alone")) == []


@pytest.mark.slow
def test_weights_need_be_on_the_first_machine_alone(folders):
    short = "--set=training.epochs=2"
    network = parse_config(CONFIG).model.build(classes=10, channels=1)
    paddle.save(network.state_dict(), str(folders[0] / "start.pdparams"))
    words = command("--config", "config.yaml", "--name", "x", short)
    words.append("--set=model.weights=start.pdparams")
    results = ended(side_by_side(folders, words))
    assert [code for code, _ in results] == [0, 0], results
    alone = command("--config", "config.yaml", "--name", "alone", short)
    run([*alone, "--set=model.weights=start.pdparams"], folders[0])
    runs = folders[0] / "runs"
    assert different(contents(runs / "x"), contents(runs / "alone")) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("optimizer.learning_rate=0.1", "optimizer.learning_rate: received 0.1, expected 0.003"),
        # Found before the processes have found each other.
        ("training.device=gpu:9", "training.device: gpu:9 works in one process alone"),
    ],
)
def test_a_mistake_on_one_machine_ends_both_with_one_line(folders, setting, told):
    words = command("--config", "config.yaml", "--name", "x")
    own: list[list[str]] = [[], ["--set", setting]]
    (code, out), (other, _) = ended(side_by_side(folders, words, *own))
    assert (code, other) == (2, 2), out
    assert out.startswith(f"resnet-fit: process 1 of 2: {told}")
    assert len(out.splitlines()) == 1
    assert not (folders[0] / "runs/x").exists()


@pytest.mark.slow
def test_other_images_on_another_machine_are_refused(folders):
    rng = np.random.default_rng(0)
    for folder in folders:
        for part, name, i in [(p, n, i) for p in ("train", "val") for n in "ab" for i in range(3)]:
            place = folder / "photos" / part / name
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)).save(place / f"{i}.png")
    for folder in folders:
        (folder / "config.yaml").write_text(dump(PHOTOS))
    words = command("--config", "config.yaml", "--name", "x")
    (code, out), (other, _) = ended(side_by_side(folders, words))
    assert (code, other) == (2, 2), out
    assert "process 1 of 2: " in out
    assert "not the data of the first process: training images were changed" in out
    assert not (folders[0] / "runs/x").exists()


@pytest.mark.slow
def test_a_run_that_is_not_there_is_told_on_both(folders):
    words = [sys.executable, "-m", "resnet_fit", "--resume", "runs/x"]
    for code, out in ended(side_by_side(folders, words)):
        assert code == 2
        assert "runs/x: not a run's folder" in out
