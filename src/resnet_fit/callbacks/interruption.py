"""Ctrl-C, SIGTERM and SIGHUP (a terminal that is gone): finish the step, save, stop."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType
from typing import Any, ClassVar

import paddle

from resnet_fit import parallel
from resnet_fit.callbacks.checkpoint import Checkpoint
from resnet_fit.errors import Interrupted
from resnet_fit.terminal import note

# There is no SIGHUP on Windows.
HANG_UP = getattr(signal, "SIGHUP", None)
# Paddle's launcher sends each process the same signal three times within 0.4 seconds.
ONE_SIGNAL = 2.0


class Interruption(paddle.callbacks.Callback):
    """Lets a training end between two steps, with a checkpoint, when it is asked to.

    The first signal waits for the batch that is trained or evaluated; an evaluation that it ends is
    to be repeated by the run that goes on. The second signal ends at once, but for SIGHUP, which
    the kernel and the shell both send when a terminal is gone. A signal that the program was told
    to ignore, as Ctrl-C is in the background of a script and SIGHUP by nohup, stays ignored. To be
    listed after the checkpoint.

    Raises:
        Interrupted: once the checkpoint is saved.
    """

    phase: ClassVar[str] = "interrupt"

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        self.checkpoint = checkpoint
        self._received, self._received_at = 0, 0.0
        self._handlers: dict[int, Any] = {}
        self._terminals: list[int] = []

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.open()

    def open(self) -> None:
        """Handle the signals: done by `fit`, and needed for an evaluation outside of it."""
        self._received = 0
        if threading.current_thread() is threading.main_thread():  # others may not handle signals
            self._terminals = [number for number in (1, 2) if os.isatty(number)]
            for number in parallel.SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._handlers[number] = signal.signal(number, self._receive)

    def on_train_batch_end(self, step: int, logs: dict[str, Any] | None = None) -> None:
        if self.checkpoint.can_save and self._agreed():
            self.checkpoint.save()
            raise Interrupted(self._received, self.checkpoint.folder.parent)

    def on_eval_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._stop_evaluation()

    def on_eval_batch_end(self, step: int, logs: dict[str, Any] | None = None) -> None:
        self._stop_evaluation()

    def on_eval_end(self, logs: dict[str, Any] | None = None) -> None:
        if self._agreed():
            raise Interrupted(self._received, self.checkpoint.folder.parent)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.close()

    def close(self) -> None:
        """Restore the signal handlers that were there before."""
        while self._handlers:
            signal.signal(*self._handlers.popitem())

    def _stop_evaluation(self) -> None:
        if self._agreed():
            self.checkpoint.save_before_evaluation()
            raise Interrupted(self._received, self.checkpoint.folder.parent)

    def _agreed(self) -> bool:
        """Whether any process was asked to stop: then all do, at the same step."""
        self._received = int(parallel.largest([self._received])[0])
        return bool(self._received)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number == HANG_UP:
            self._leave_terminal()
        elif self._received:
            if parallel.size() > 1 and time.monotonic() - self._received_at < ONE_SIGNAL:
                return
            self.close()
            os.kill(os.getpid(), number)
            return
        self._received, self._received_at = self._received or number, time.monotonic()
        note("stops after this batch and saves; again: at once")

    def _leave_terminal(self) -> None:
        """Discard what is written to a terminal that is gone, where writing fails."""
        for number in self._terminals:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, number)
            os.close(nowhere)
