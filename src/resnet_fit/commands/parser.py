"""What the commands have in common: arguments, and the import of Paddle."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from resnet_fit.errors import UserError
from resnet_fit.home import expand


class Parser(argparse.ArgumentParser):
    """A parser whose mistakes are told in one line, as all others are."""

    def error(self, message: str) -> None:  # type: ignore[override]
        raise UserError(f"{message} (see {self.prog} --help)")

    def add_config(self) -> None:
        """``--config FILE`` and what changes it."""
        self.add_argument(
            "--config",
            metavar="FILE",
            required=True,
            help="the experiment: a file or a name; - reads standard input",
        )
        self.add_overrides()

    def add_overrides(self) -> None:
        """``--set KEY=VALUE``, any number of times."""
        self.add_argument(
            "--set",
            metavar="KEY=VALUE",
            dest="overrides",
            action="append",
            default=[],
            help="change one setting, such as training.epochs=5; may be repeated",
        )

    def add_weights(self, default: str | None = None) -> None:
        """``--checkpoint`` and ``--average``, which say what weights of a run are meant.

        Args:
            default: the checkpoint where none is named; None leaves that to the command.
        """
        self.add_argument(
            "--checkpoint",
            metavar="best|last|epoch-N",
            default=default,
            help="which one of the run (best)",
        )
        self.add_argument(
            "--average",
            action="store_true",
            default=None,
            help="take the averaged weights (the default where the best epoch was chosen by them)",
        )

    def add_device(self) -> None:
        """``--device``, where a network computes."""
        self.add_argument(
            "--device", metavar="cpu|gpu|gpu:N", default="auto", help="where to compute (auto)"
        )


def whole_number(least: int) -> Callable[[str], int]:
    """The type of an argument that is a whole number of ``least`` or more."""

    def parsed(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(
                f"received {text!r}, expected a whole number from {least}"
            )
        return int(text)

    return parsed


def picture_file(text: str) -> Path:
    """The type of an argument that names a picture to write: PNG, SVG or PDF by its ending."""
    file = expand(text)
    if file.suffix not in (".png", ".svg", ".pdf"):
        raise argparse.ArgumentTypeError(
            f"received {text!r}, expected a name that ends in .png, .svg or .pdf"
        )
    if not file.parent.is_dir():
        raise argparse.ArgumentTypeError(f"received {text!r}: there is no folder {file.parent}")
    return file


def wake_paddle(overrides: Sequence[str] = (), say: Callable[[str], object] = print) -> None:
    """Say what differs from the file, and import Paddle with the settings of this machine."""
    for override in overrides:
        say(f"set {override}")
    from resnet_fit.runtime import prepare_environment

    with _ctrl_c_ends_at_once():
        prepare_environment()


@contextmanager
def _ctrl_c_ends_at_once() -> Iterator[None]:
    """For the import of Paddle, in which a KeyboardInterrupt may fall where it is swallowed."""

    def end(*_: object) -> None:
        # Not sys.stderr, which is redirected while Paddle is imported.
        with suppress(OSError, ValueError):
            print("resnet-fit: interrupted", file=sys.__stderr__, flush=True)
            sys.stdout.flush()
        os._exit(130)

    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not usual or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
