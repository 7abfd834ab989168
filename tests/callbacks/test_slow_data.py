"""A training that waits for its data is told so once, and in time."""

from __future__ import annotations

import warnings

import paddle
import pytest
from passing import Time
from softmax import TRAIN, make_model

from resnet_fit.callbacks import Clock, History, SlowData


@pytest.fixture
def time(monkeypatch):
    fake = Time()
    monkeypatch.setattr("resnet_fit.callbacks.clock.time", fake)
    return fake


class Slow(list):
    """Three batches that take their time to come, the first of them longer."""

    def __init__(self, time, first, others):
        super().__init__(TRAIN)
        self.time, self.seconds = time, (first, others, others)

    def __iter__(self):
        for seconds, batch in zip(self.seconds, super().__iter__(), strict=True):
            self.time.now += seconds
            yield batch


class Step(paddle.callbacks.Callback):
    """A step of eight seconds; it is listed first, so that they pass before the others look."""

    def __init__(self, time):
        super().__init__()
        self.time = time

    def on_train_batch_end(self, step, logs=None):
        self.time.now += 8


def warned(time, first, others, *callbacks, epochs=4):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        callbacks = [Step(time), *callbacks]
        data = Slow(time, first, others)
        make_model().fit(data, epochs=epochs, verbose=0, callbacks=list(callbacks))
    return [str(w.message) for w in caught if "bottleneck" in str(w.message)]


def test_it_is_said_once_with_what_helps(time):
    """Two of three steps count, of twelve seconds each: after the third of them it is known."""
    watch = SlowData("try more workers")
    (line,) = warned(time, 0, 4, watch)
    assert line == (
        "data are the bottleneck: the training waited for them 12 of the last 36 seconds: "
        "try more workers"
    )
    assert watch.warned


@pytest.mark.parametrize(("others", "lines"), [(1.9, 0), (2.1, 1)])
def test_a_fifth_of_the_time_is_too_much(time, others, lines):
    assert len(warned(time, 0, others, SlowData())) == lines


def test_an_epochs_first_batch_may_take_its_time(time):
    history = History()
    assert warned(time, 100, 0, SlowData(), history) == []
    assert history.rows[0]["data_wait"] == pytest.approx(100 / 124, abs=1e-4)


def test_a_short_training_is_left_in_peace(time):
    assert warned(time, 0, 4, SlowData(seconds=100)) == []


def test_a_shared_clock_changes_nothing(time):
    clock = Clock()
    history = History(clock=clock)
    assert len(warned(time, 0, 4, history, SlowData(clock=clock))) == 1
    assert [row["data_wait"] for row in history.rows] == [pytest.approx(0.25)] * 4
