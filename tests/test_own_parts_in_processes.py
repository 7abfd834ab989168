"""A user's own network, data, loss, optimizer, augmentation and callbacks under two processes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from launching import by_paddle, contents, different, ended, run, side_by_side

PARTS = '''
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from resnet_fit.runtime import prepare_environment

prepare_environment()
import numpy as np
import paddle
from paddle import nn

from resnet_fit import CrossEntropy, fit, parallel, parse_config, resume
from resnet_fit.parts import ArrayDataset, Loss, Operation, Optimizer, part


@part("loss", "squares")
class Squares(Loss):
    """Cross entropy and the square of the logits."""

    def build(self, labels, classes):
        class SquaresLoss(CrossEntropy):
            def per_sample(self, logits, labels):
                return super().per_sample(logits, labels) + 0.01 * (logits**2).mean(axis=1)

        return SquaresLoss(self.label_smoothing, self.weights(labels, classes))


@part("optimizer", "adagrad")
class Adagrad(Optimizer):
    """Paddle's Adagrad."""

    slots: ClassVar[int] = 1

    def build(self, network, rate):
        return paddle.optimizer.Adagrad(**self.arguments(network, rate))


@part("augmentation", "darken")
@dataclass(frozen=True)
class Darken(Operation):
    """Scale pixel values down."""

    draws: ClassVar[int] = 1
    grey_levels: ClassVar[bool] = True

    def apply(self, images, uniforms):
        return images * (1 - 0.3 * uniforms[:, :, None, None]).astype("float32")


class Record(paddle.callbacks.Callback):
    count = 0

    def on_epoch_end(self, epoch, logs=None):
        self.count += 1
        name = f"{sys.argv[1]}-{type(self).__name__}-{parallel.rank()}"
        Path(name).write_text(f"{self.count} {logs['loss']}")

    def state_dict(self):
        return {"count": self.count}

    def set_state_dict(self, state):
        self.count = state["count"]


class Everywhere(Record):
    everywhere = True


class Evaluate(Record):
    phase = "evaluate"


def data(count, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    images = rng.integers(0, 100, (count, 1, 8, 8), dtype=np.uint8)
    images[np.arange(count), 0, labels * 2] = 250
    return ArrayDataset(images, labels, ("a", "b", "c"))


class Network(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Conv2D(1, 8, 3), nn.BatchNorm2D(8), nn.ReLU(), nn.Dropout(0.1), nn.Flatten(),
            nn.Linear(288, 3),
        )


config = parse_config(
    {
        "model": {"name": "given"},
        "data": {"name": "given", "batch_size": 20},
        "augmentation": {"train": ["darken", "normalize"]},
        "loss": {"name": "squares"},
        "optimizer": {"name": "adagrad", "learning_rate": 0.05},
        "training": {"epochs": 2, "accumulate": 2},
        "callbacks": {"visualdl": None},
    }
)


def given():
    paddle.seed(parallel.rank())  # whoever builds a network in several processes forgets it
    return {
        "network": Network(),
        "data": (data(210, seed=0), data(50, seed=1)),
        "callbacks": [Record(), Everywhere(), Evaluate()],
    }
'''
TRAIN = """
run = fit(config, name=sys.argv[1], **given())
resume(run.folder, ["training.epochs=3"], **given())
"""


@pytest.mark.slow
def test_they_come_to_what_they_do_in_one_process_to_the_last_bit(tmp_path: Path):
    (tmp_path / "mine.py").write_text(PARTS + TRAIN)
    run([sys.executable, "mine.py", "one"], tmp_path)
    run(by_paddle(tmp_path, "mine.py", "two"), tmp_path)
    assert different(contents(tmp_path / "runs/one"), contents(tmp_path / "runs/two")) == []

    def seen(kind: str, rank: int = 0) -> str:
        return (tmp_path / f"two-{kind}-{rank}").read_text()

    assert not (tmp_path / "two-Record-1").exists()
    assert seen("Everywhere", 1) == seen("Evaluate", 1) == seen("Record")
    assert seen("Record") == (tmp_path / "one-Record-0").read_text()
    assert seen("Record").startswith("3 ")  # epochs, also over the resumed run


REFUSED = {
    "_mean is not the same in all processes after step 2": """
class Network(Network):
    def __init__(self):
        super().__init__()
        self.register_buffer("own_mean", paddle.zeros([1]))

    def forward(self, images):
        self.own_mean.set_value(images.mean().reshape([1]))
        return super().forward(images)
""",
    "not the data of the first process: class 'a' has ": """
def data(count, seed, data=data):
    return data(count, seed + parallel.rank())
""",
    "has come to ": """
class Record(Record):
    def on_train_batch_end(self, step, logs=None):
        parallel.largest([1.0, 2.0, 3.0])
""",
}


@pytest.mark.slow
@pytest.mark.parametrize("told", REFUSED)
def test_what_differs_between_processes_is_refused_in_one_line(tmp_path: Path, told: str):
    (tmp_path / "mine.py").write_text(PARTS + REFUSED[told] + TRAIN)
    words = [sys.executable, "mine.py", "refused"]
    results = ended(side_by_side([tmp_path, tmp_path], words, machines=1))
    assert all(code for code, _ in results)
    assert any(told in out.strip().splitlines()[-1] for _, out in results), results
