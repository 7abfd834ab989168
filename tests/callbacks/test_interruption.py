"""Signals that end a training, and those that must not. Killed runs are in training/test_resume."""

import signal

import pytest

from resnet_fit.callbacks import Checkpoint, Interruption


@pytest.fixture
def stopping(tmp_path):
    callback = Interruption(Checkpoint(tmp_path))
    yield callback
    callback.close()


def test_signals_are_taken_over_and_given_back(stopping):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    stopping.on_train_begin()
    taken = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert taken == [stopping._receive] * 2
    stopping.on_train_end()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_signal_that_was_ignored_stays_ignored(stopping):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        stopping.on_train_begin()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) == stopping._receive
        stopping.close()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
