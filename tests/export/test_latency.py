"""Sides of a comparison of times take turns, and none is timed beside the threads of another."""

from __future__ import annotations

from itertools import chain

import numpy as np

from resnet_fit.export.latency import FEWEST, TURNS, _alternate


def test_each_side_computes_an_untimed_batch_before_each_timed_one():
    calls = []

    def side(name):
        def work(batch):
            calls.append(name)
            return float(len(calls))

        return work

    seconds = _alternate({"a": side("a"), "b": side("b")}, np.zeros((1, 3, 8, 8)))
    warm_up, turns = calls[:2], calls[2:]
    assert warm_up == ["a", "b"]
    assert turns == ["a", "a", "b", "b"] * TURNS
    timed = sorted(chain.from_iterable(seconds.values()))
    assert timed == [float(at) for at in range(4, len(calls) + 1, 2)]
    assert len(seconds["a"]) == len(seconds["b"]) == TURNS


def test_slow_sides_get_few_turns(monkeypatch):
    monkeypatch.setattr("resnet_fit.export.latency.SECONDS", 0.0)
    seconds = _alternate({"a": lambda _: 1.0}, np.zeros((1, 3, 8, 8)))
    assert seconds == {"a": [1.0] * FEWEST}
