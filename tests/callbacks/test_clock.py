"""A clock tells where a run is, however many callbacks look at it and however often it stopped."""

from __future__ import annotations

import pytest
from passing import Time

from resnet_fit.callbacks import Checkpoint, Clock, History, NaNGuard, ProgressBar, VisualDL


@pytest.fixture
def time(monkeypatch):
    fake = Time(1000.0)
    monkeypatch.setattr("resnet_fit.callbacks.clock.time", fake)
    return fake


def train(clock, time, epochs=1, batches=(8, 8, 5), evaluation=5.0, first=0):
    """What `fit` reports, each batch taking two seconds, half of one of them to come."""
    clock.begin()
    for epoch in range(epochs):
        clock.begin_epoch(epoch)
        for step, images in enumerate(batches[first:]):
            time.now += 0.5
            clock.begin_step(step)
            time.now += 1.5
            clock.count(step, images)
        clock.end_epoch()
        time.now += evaluation
    clock.end()


def test_counts_and_seconds(time):
    clock = Clock()
    train(clock, time, epochs=2)
    assert (clock.epoch, clock.step, clock.epoch_step, clock.epoch_images) == (2, 6, 3, 21)
    assert clock.epoch_seconds == 6, "evaluation is not training"
    assert clock.seconds == 22, "but the run's"
    assert clock.images_per_second == 21 / 6
    assert clock.epoch_wait_seconds == 1.5
    assert clock.data_wait == 0.25


def test_a_second_fit_goes_on_and_the_time_between_does_not_count(time):
    clock = Clock()
    train(clock, time, batches=(8,))
    time.now += 3600
    train(clock, time, batches=(8,))
    assert (clock.epoch, clock.step) == (2, 2)
    assert clock.epoch_seconds == 2
    assert clock.seconds == 14


@pytest.mark.parametrize("done", [0, 1, 2])
def test_a_state_from_within_an_epoch_ends_as_if_nothing_had_been(time, done):
    whole = Clock()
    train(whole, time, epochs=2)
    expected = whole.state_dict()

    clock = Clock()
    train(clock, time)
    clock.begin()
    clock.begin_epoch(0)
    for step in range(done):
        time.now += 0.5
        clock.begin_step(step)
        time.now += 1.5
        clock.count(step, 8)
    state = clock.state_dict()
    time.now += 3600

    resumed = Clock()
    resumed.set_state_dict(state)
    assert resumed.within_epoch
    train(resumed, time, first=done)
    assert resumed.state_dict() == expected


def test_work_of_callbacks_is_not_waiting(time):
    """Several share a clock: the first that reports a step moves it, the last one is free last."""
    clock = Clock()
    clock.begin()
    for epoch in range(2):
        for _ in range(2):
            clock.begin_epoch(epoch)
            time.now += 1  # what one of them does before the next one reports
        clock.await_batch()
        for step in range(3):
            time.now += 0.25
            clock.begin_step(step)
            clock.begin_step(step)
            time.now += 4
            for _ in range(2):
                clock.count(step, 8)
                time.now += 1
            clock.await_batch()
        clock.end_epoch()
        assert clock.epoch_wait_seconds == 0.75


def test_nothing_counts_before_the_first_epoch():
    clock = Clock()
    assert (clock.epoch, clock.step, clock.images_per_second) == (0, 0, 0.0)
    assert not clock.within_epoch


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("epochs", [1, 3])
def test_callbacks_count_the_same_together_and_alone(tmp_path, capsys, shared, epochs):
    from softmax import EVAL, TRAIN, make_model

    def clock():
        return together if shared else Clock()

    together = Clock()
    callbacks = [
        NaNGuard(clock()),
        History(clock=clock()),
        VisualDL(tmp_path, clock=clock()),
        ProgressBar(clock=clock()),
        Checkpoint(tmp_path, clock=clock()),
    ]
    model = make_model()
    for _ in range(2):
        model.fit(TRAIN, EVAL, epochs=epochs, verbose=0, callbacks=callbacks)
    for callback in callbacks:
        clock = callback.clock
        assert (clock.epoch, clock.step, clock.epoch_step) == (2 * epochs, 6 * epochs, 3)
        assert clock.epoch_images == 21
