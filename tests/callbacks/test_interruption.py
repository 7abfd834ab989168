"""Signals that end a training, and those that must not. Killed runs are in training/test_resume."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time

import pytest
from softmax import EVAL, TRAIN, make_model

from resnet_fit.callbacks import Checkpoint, Interruption
from resnet_fit.errors import Interrupted
from resnet_fit.parallel import SIGNALS


@pytest.fixture
def stopping(tmp_path):
    callback = Interruption(Checkpoint(tmp_path))
    yield callback
    callback.close()


def handlers():
    return [signal.getsignal(number) for number in SIGNALS]


def test_signals_are_taken_over_and_given_back(stopping):
    before = handlers()
    stopping.on_train_begin()
    assert handlers() == [stopping._receive] * 3
    stopping.on_train_end()
    assert handlers() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_was_ignored_stays_ignored(stopping, number):
    before = signal.signal(number, signal.SIG_IGN)
    try:
        stopping.on_train_begin()
        assert signal.getsignal(number) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) == stopping._receive
        stopping.close()
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_a_second_hang_up_does_not_end_at_once(tmp_path):
    """The kernel sends one when a terminal is gone, and the shell another."""
    checkpoint = Checkpoint(tmp_path)
    callback = Interruption(checkpoint)
    hang_up = [TRAIN[0], *(Hanging(batch) for batch in TRAIN[:2])]
    with pytest.raises(Interrupted) as caught:
        make_model().fit(hang_up, EVAL, epochs=1, verbose=0, callbacks=[checkpoint, callback])
    callback.close()
    assert caught.value.exit_code == 128 + signal.SIGHUP
    assert checkpoint.clock.step == 2
    assert (tmp_path / "last").is_dir()


class Hanging(list):
    """A batch whose reading hangs up twice."""

    def __iter__(self):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGHUP)
        return super().__iter__()


def test_a_run_whose_terminal_is_gone_saves(tiny, tmp_path, write_yaml):
    """A real terminal, closed on a run that is writing its progress to it."""
    tiny["training"]["epochs"] = 1000
    tiny["schedule"] = {"name": "constant"}
    code = (
        "import fcntl, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
        "from resnet_fit.cli import main; code = main(); "
        f"open({str(tmp_path / 'code')!r}, 'w').write(str(code))"
    )
    command = ["--config", write_yaml(tiny), "--output", tmp_path, "--name", "run"]
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, command)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    last = tmp_path / "run" / "checkpoints" / "last"
    shown = b""
    deadline = time.monotonic() + 60
    while not last.exists():
        assert process.poll() is None, shown.decode()
        assert time.monotonic() < deadline
        shown += os.read(ours, 10_000)
    before = (last / "state.json").read_text()
    os.close(ours)
    process.wait(timeout=60)
    assert (tmp_path / "code").read_text() == str(128 + signal.SIGHUP)
    assert (last / "state.json").read_text() != before
