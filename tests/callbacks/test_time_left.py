"""How long a training still takes, by the time of a clock that is moved by hand."""

from __future__ import annotations

import pytest
from passing import Time

from resnet_fit.callbacks.clock import Clock
from resnet_fit.callbacks.time_left import TimeLeft

STEPS, BATCH = 4, 10


class Training:
    """Epochs of four steps of ten seconds."""

    def __init__(self, monkeypatch, **images):
        self.time = Time()
        for module in ("clock", "time_left"):
            monkeypatch.setattr(f"resnet_fit.callbacks.{module}.time", self.time)
        self.clock = Clock()
        self.clock.begin(STEPS)
        self.left = TimeLeft(self.clock, **images)
        self.epochs = self.epochs_left = 0

    def begin(self, epochs_left):
        self.clock.begin_epoch(self.epochs)
        self.epochs_left = epochs_left
        self.left.begin_epoch(epochs_left)
        self.epochs += 1

    def steps(self, number):
        for _ in range(number):
            self.time.now += 10
            self.clock.count(self.clock.epoch_step, BATCH)

    def end(self):
        self.clock.end_epoch()
        self.left.end_epoch(self.epochs_left)

    def evaluate(self, images, seconds, share=1.0):
        self.time.now += seconds
        self.left.evaluate(images, share)


@pytest.fixture
def training(monkeypatch):
    return Training(monkeypatch, evaluated=60, tested=120)


def test_an_epoch_is_as_long_as_its_steps_so_far(training):
    training.begin(epochs_left=0)
    assert training.left.of_epoch == 0, "nothing is known yet"
    training.steps(1)
    assert training.left.of_epoch == 30
    training.steps(3)
    assert training.left.of_epoch == 0


def test_evaluation_is_assumed_until_it_was_timed(training):
    """One image a second in training, so three in evaluation: 20 seconds, and 40 for the test."""
    training.begin(epochs_left=2)
    training.steps(1)
    assert training.left.of_run == 30 + 20 + 2 * (40 + 20) + 40


def test_evaluation_counts_as_it_was(training):
    training.begin(epochs_left=2)
    training.steps(4)
    training.end()
    training.evaluate(30, seconds=6)
    assert training.left.of_run == 6 + 2 * (40 + 12) + 24
    training.evaluate(30, seconds=6)
    training.left.end_evaluations()
    assert training.left.of_run == 2 * (40 + 12) + 24
    training.time.now += 3  # a checkpoint is saved
    training.begin(epochs_left=1)
    training.steps(2)
    assert training.left.of_run == 20 + 15 + 1 * (40 + 15) + 30
    training.steps(2)
    training.end()
    training.evaluate(20, seconds=1)  # faster than before, which may be a quick part
    assert training.left.of_run == 10 + 55 + 30


def test_only_epochs_with_an_evaluation_count_one(monkeypatch):
    """Of five epochs the second, the fourth and the last."""
    training = Training(monkeypatch, evaluated=60, every=2)
    training.begin(epochs_left=4)
    training.steps(1)
    assert training.left.of_run == 30 + 4 * 40 + 3 * 20
    training.steps(3)
    training.end()
    assert training.left.of_run == 4 * 40 + 3 * 20
    training.begin(epochs_left=3)
    training.steps(4)
    assert training.left.of_run == 3 * 40 + 3 * 20
    training.end()
    training.evaluate(60, seconds=10)
    training.left.end_evaluations()
    assert training.left.of_run == 3 * 40 + 2 * 10
    training.begin(epochs_left=2)
    training.steps(4)
    training.end()
    assert training.left.of_run == 2 * 40 + 2 * 10
    training.begin(epochs_left=1)
    training.steps(2)
    assert training.left.of_run == 20 + 10 + 40 + 10


def test_an_evaluation_that_an_earlier_sitting_has_left(training):
    """The epoch's seconds are in the clock's state; what evaluation takes has to be seen again."""
    training.begin(epochs_left=2)
    training.steps(4)
    training.clock.end_epoch()
    resumed = TimeLeft(clock := Clock(), evaluated=60)
    clock.set_state_dict(training.clock.state_dict())
    resumed.end_epoch(2)
    training.time.now += 6
    resumed.evaluate(30, share=0.5)
    assert resumed.of_run == 6 + 2 * (40 + 12)


def test_a_test_at_the_end(training):
    training.begin(epochs_left=0)
    training.steps(4)
    training.end()
    training.evaluate(60, seconds=12)
    training.left.end_evaluations()
    training.left.begin_test()
    assert training.left.of_run == 24
    training.evaluate(30, seconds=6)
    training.left.begin_test()  # of averaged weights
    assert training.left.of_run == 18


def test_a_test_alone_as_in_a_run_that_goes_on_with_it(training):
    training.left.begin_test()
    assert training.left.of_run == 0
    training.evaluate(40, seconds=5)
    assert training.left.of_run == pytest.approx(10)


def test_without_numbers_of_images_the_steps_of_an_evaluation_tell(monkeypatch):
    training = Training(monkeypatch)
    training.begin(epochs_left=1)
    training.steps(4)
    assert training.left.of_run == 40
    training.end()
    training.evaluate(10, seconds=5, share=0.5)
    assert training.left.of_run == 5 + 40 + 10
    training.evaluate(10, seconds=5, share=1.0)
    training.left.end_evaluations()
    assert training.left.of_run == 40 + 10
