"""A training ends when it no longer gets better, and not before."""

from __future__ import annotations

import pytest
from softmax import EVAL, TRAIN, make_model
from test_checkpoint import Script, Scripted

from resnet_fit.callbacks import EarlyStopping
from resnet_fit.errors import UserError

NAN = float("nan")

SERIES = {
    "worse twice": ({}, [0.1, 0.3, 0.2, 0.3, 0.9], 4),
    "rises all the time": ({}, [0.1, 0.2, 0.3, 0.4, 0.5], None),
    "a new best starts the count afresh": ({}, [0.3, 0.2, 0.4, 0.3, 0.5], None),
    "small gains do not count": ({"min_delta": 0.1}, [0.5, 0.55, 0.59, 0.7, 0.8], 3),
    "small gains add up": ({"min_delta": 0.1}, [0.5, 0.55, 0.62, 0.6, 0.8], None),
    "lowest is best": ({"mode": "min"}, [3.0, 2.0, 2.5, 2.0, 1.0], 4),
    "no number is no gain": ({}, [NAN, NAN, 0.5, 0.6, 0.7], 2),
}


@pytest.mark.parametrize("series", SERIES)
def test_it_stops_after_patience(series):
    options, values, stopped = SERIES[series]
    metric = Scripted(values)
    script, stopping = Script(metric), EarlyStopping(patience=2, **options)
    make_model([metric]).fit(
        TRAIN, EVAL, epochs=len(values), verbose=0, callbacks=[script, stopping]
    )
    assert stopping.stopped == stopped
    assert len(script.weights) == (stopped or len(values))


def test_an_evaluation_of_its_own_does_not_count():
    stopping = EarlyStopping(patience=1)
    model = make_model([Scripted([])])
    for _ in range(3):
        model.evaluate(EVAL, verbose=0, callbacks=[stopping])
    assert stopping.waited == 0


def test_what_could_never_stop_a_training_is_refused():
    with pytest.raises(UserError, match=r"no metric 'acc'.* This model has: loss, top1, top3"):
        make_model().fit(TRAIN, EVAL, verbose=0, callbacks=[EarlyStopping("acc")])
    with pytest.raises(UserError, match="mode='lowest': choose max or min"):
        EarlyStopping(mode="lowest")
    with pytest.raises(UserError, match="patience: received 0"):
        EarlyStopping(patience=0)
