"""Several machines, here two launchers on one, with a working folder each and no common disk."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import paddle
import pytest
from launching import (
    CONFIG,
    ENVIRONMENT,
    PATIENCE,
    by_paddle,
    children,
    command,
    contents,
    different,
    run,
    training_of,
)
from PIL import Image

from resnet_fit import parse_config
from resnet_fit.config.document import dump

Machine = subprocess.Popen[str]


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Of two machines, each with a copy of the config."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(dump(CONFIG))
    return [tmp_path / "first", tmp_path / "second"]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def launch(folders: list[Path], *words: str) -> list[Machine]:
    """Paddle's launcher on each machine, as docs/many-devices.md says, one process each."""
    master = f"127.0.0.1:{free_port()}"
    options = {"nnodes": 2, "master": master, "nproc_per_node": 1}
    return [
        started(by_paddle(folder, *words, rank=rank, **options), folder)
        for rank, folder in enumerate(folders)
    ]


def without_launcher(folders: list[Path], words: list[str], *more: list[str]) -> list[Machine]:
    """The same two processes by the variables alone that the launcher sets, which is faster."""
    ports = [free_port() for _ in range(3)]
    endpoints = [f"127.0.0.1:{port}" for port in ports[1:]]
    shared = {
        "PADDLE_MASTER": f"127.0.0.1:{ports[0]}",
        "PADDLE_TRAINERS_NUM": "2",
        "PADDLE_LOCAL_SIZE": "1",
        "PADDLE_TRAINER_ENDPOINTS": ",".join(endpoints),
    }
    machines = []
    for rank, folder in enumerate(folders):
        own = {"PADDLE_TRAINER_ID": str(rank), "PADDLE_CURRENT_ENDPOINT": endpoints[rank]}
        mine = [*words, *(more[rank] if more else [])]
        machines.append(started(mine, folder, shared | own))
    return machines


def started(words: list[str], folder: Path, variables: dict[str, str] | None = None) -> Machine:
    return subprocess.Popen(
        words,
        cwd=folder,
        env=ENVIRONMENT | (variables or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(machines: list[Machine]) -> list[tuple[int, str]]:
    """The exit code and the output of each."""
    outputs = [machine.communicate(timeout=PATIENCE)[0] for machine in machines]
    return [(machine.returncode, out) for machine, out in zip(machines, outputs, strict=True)]


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
    results = ended(without_launcher(folders, words))
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
    (code, out), (other, _) = ended(without_launcher(folders, words, *own))
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
    photos = {
        "model": CONFIG["model"],
        "data": {"name": "folder", "path": "photos", "batch_size": 2},
        "augmentation": {"eval": [{"resize": {"size": 12}}, {"center_crop": {"size": 12}}]},
        "training": {"epochs": 1, "accumulate": 2},
        "optimizer": CONFIG["optimizer"],
    }
    for folder in folders:
        (folder / "config.yaml").write_text(dump(photos))
    words = command("--config", "config.yaml", "--name", "x")
    (code, out), (other, _) = ended(without_launcher(folders, words))
    assert (code, other) == (2, 2), out
    assert "process 1 of 2: " in out
    assert "not the data of the first process: training images were changed" in out
    assert not (folders[0] / "runs/x").exists()


@pytest.mark.slow
def test_a_run_that_is_not_there_is_told_on_both(folders):
    words = [sys.executable, "-m", "resnet_fit", "--resume", "runs/x"]
    for code, out in ended(without_launcher(folders, words)):
        assert code == 2
        assert "runs/x: not a run's folder" in out
