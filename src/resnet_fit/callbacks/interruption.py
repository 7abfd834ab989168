"""Ctrl-C and SIGTERM: finish the step, save, stop."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

import paddle

from resnet_fit.callbacks.checkpoint import Checkpoint
from resnet_fit.errors import Interrupted
from resnet_fit.terminal import note


class Interruption(paddle.callbacks.Callback):
    """Lets a training end between two steps, with a checkpoint, when it is asked to.

    The first signal waits for the batch that is trained or evaluated; an evaluation that it ends is
    to be repeated by the run that goes on. The second signal ends at once. One that the program was
    told to ignore, as Ctrl-C is in the background of a script, stays ignored. To be listed after
    the checkpoint.

    Raises:
        Interrupted: once the checkpoint is saved.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        self.checkpoint = checkpoint
        self._received = 0
        self._handlers: dict[int, Any] = {}

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.open()

    def open(self) -> None:
        """Take the signals over: done by `fit`, and to be done for an evaluation outside of it."""
        self._received = 0
        if threading.current_thread() is threading.main_thread():  # others may not handle signals
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._handlers[number] = signal.signal(number, self._receive)

    def on_train_batch_end(self, step: int, logs: dict[str, Any] | None = None) -> None:
        if self._received and self.checkpoint.can_save:
            self.checkpoint.save()
            raise Interrupted(self._received, self.checkpoint.folder.parent)

    def on_eval_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._stop_evaluation()

    def on_eval_batch_end(self, step: int, logs: dict[str, Any] | None = None) -> None:
        self._stop_evaluation()

    def on_eval_end(self, logs: dict[str, Any] | None = None) -> None:
        if self._received:
            raise Interrupted(self._received, self.checkpoint.folder.parent)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self.close()

    def close(self) -> None:
        """Give the signals back to whom they belonged."""
        while self._handlers:
            signal.signal(*self._handlers.popitem())

    def _stop_evaluation(self) -> None:
        if self._received:
            self.checkpoint.save_before_evaluation()
            raise Interrupted(self._received, self.checkpoint.folder.parent)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._received:
            self.close()
            os.kill(os.getpid(), number)
            return
        self._received = number
        note("stops after this batch and saves; again: at once")
