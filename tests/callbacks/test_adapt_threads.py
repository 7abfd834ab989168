"""The number of threads follows what other processes leave, where that is faster."""

from __future__ import annotations

import paddle
import pytest
from passing import Time
from softmax import TRAIN, make_model

from resnet_fit import fit, parse_config
from resnet_fit.backends import set_threads, threads
from resnet_fit.callbacks import AdaptThreads
from resnet_fit.callbacks.thread_policy import ThreadPolicy


def simulate(policy, pace, taken, seconds, images=32):
    """Numbers of threads of each step, for so many seconds of a machine of a known pace."""
    numbers = []
    passed = 0.0
    while passed < seconds:
        numbers.append(policy.threads)
        took = pace(policy.threads) * images
        passed += took
        policy.step(took, images, taken)
    return numbers


def slowed(threads):
    """Two cores, one of them taken: the second thread is waited for."""
    return {2: 0.03, 1: 0.02}[threads]


def alone(threads):
    return 0.02 / threads


def test_all_threads_while_nobody_takes_a_core():
    assert set(simulate(ThreadPolicy(2), alone, 0.2, 100)) == {2}


def test_fewer_while_that_is_faster_and_all_again_afterwards():
    policy = ThreadPolicy(2)
    crowded = simulate(policy, slowed, 1.0, 300)
    first = crowded.index(1)
    assert 5 <= first < 15  # after some steps to compare with
    assert crowded[first:].count(2) < 0.1 * len(crowded)
    assert 2 in crowded[first + 20 :]  # looks again
    assert set(simulate(policy, alone, 0.0, 60)[20:]) == {2}


def test_all_threads_where_fewer_are_not_faster():
    numbers = simulate(ThreadPolicy(2), alone, 1.0, 300)
    assert 1 in numbers
    assert numbers.count(1) < 0.1 * len(numbers)
    assert numbers[-1] == 2


def test_what_is_equally_fast_does_not_change_the_number():
    numbers = simulate(ThreadPolicy(4), lambda threads: 0.02 + 1e-4 * threads, 1.0, 300)
    assert numbers.count(4) > 0.9 * len(numbers)


def test_it_changes_its_mind_when_the_other_number_becomes_faster():
    policy = ThreadPolicy(2)
    simulate(policy, slowed, 1.0, 60)
    assert simulate(policy, alone, 1.0, 300)[-50:] == [2] * 50


def test_as_many_as_others_leave_are_tried():
    tried = set(simulate(ThreadPolicy(8), alone, 2.6, 60))
    assert tried == {8, 5}
    assert set(simulate(ThreadPolicy(2), slowed, 7.0, 60)) == {2, 1}
    assert set(simulate(ThreadPolicy(1), lambda threads: 0.02, 1.0, 60)) == {1}


def test_a_moment_of_others_changes_nothing():
    policy = ThreadPolicy(2)
    for _ in range(10):
        numbers = simulate(policy, slowed, 1.0, 2) + simulate(policy, alone, 0.0, 20)
        assert set(numbers) == {2}


def test_short_steps_are_measured_for_long_enough():
    policy = ThreadPolicy(2)
    numbers = simulate(policy, lambda threads: slowed(threads) / 100, 1.0, 60)
    assert numbers.index(1) > 200


def test_images_of_another_size_are_not_compared():
    policy = ThreadPolicy(2)
    while policy.threads == 2:  # until a trial begins
        policy.step(0.9, 32, 1.0)
    policy.restart()
    numbers = simulate(policy, lambda threads: 4 * alone(threads), 1.0, 100)
    assert numbers[:5] == [2] * 5
    assert numbers.count(1) < 0.2 * len(numbers)


@pytest.fixture
def machine(monkeypatch):
    """Another process keeps a core busy, and a step takes as long as `slowed` says."""

    class Neighbours:
        def cores_taken(self):
            return 1.0

    time = Time()
    monkeypatch.setattr("resnet_fit.callbacks.adapt_threads.time", time)
    monkeypatch.setattr("resnet_fit.callbacks.adapt_threads.Neighbours", Neighbours)
    before = threads()
    set_threads(2)
    yield time
    set_threads(before)


class Step(paddle.callbacks.Callback):
    """Lets time pass, before the others look."""

    def __init__(self, time):
        super().__init__()
        self.time = time
        self.numbers = []

    def on_train_batch_end(self, step, logs=None):
        self.numbers.append(threads())
        self.time.now += slowed(threads()) * 32


def test_a_training_computes_with_the_number_and_leaves_all(machine):
    step = Step(machine)
    callbacks = [step, AdaptThreads()]
    make_model().fit(TRAIN * 40, epochs=1, verbose=0, callbacks=callbacks)
    assert step.numbers[:3] == [2, 2, 2]
    assert step.numbers[-50:] == [1] * 50
    assert threads() == 2


class Broken(Exception):
    pass


class Break(paddle.callbacks.Callback):
    def on_train_batch_end(self, step, logs=None):
        if threads() == 1:
            raise Broken


def test_all_threads_are_back_after_an_exception(machine):
    callback = AdaptThreads()
    with pytest.raises(Broken):
        make_model().fit(TRAIN * 40, verbose=0, callbacks=[Step(machine), callback, Break()])
    assert threads() == 1
    callback.close()
    assert threads() == 2


def test_a_run_may_have_it(tiny, tmp_path, monkeypatch):
    before = threads()
    step_end, seen = AdaptThreads.on_train_batch_end, []

    def noted(self, step, logs=None):
        step_end(self, step, logs)
        seen.append(self.every)

    monkeypatch.setattr(AdaptThreads, "on_train_batch_end", noted)
    run = fit(parse_config(tiny, ["callbacks.adapt_threads={every: 0.5}"]), tmp_path, "run")
    assert seen == [0.5] * run.summary["last"]["step"]
    assert run.summary["epochs"] == 2
    assert threads() == before
