"""The command line: ``resnet-fit --config FILE`` trains, and named commands do the rest."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from resnet_fit import parallel
from resnet_fit.errors import Interrupted, LostProcess, RunFailed, UserError, suggest, told
from resnet_fit.terminal import OutputClosed, close_output, complain, open_streams

DONE, FAILED, USERS_MISTAKE = 0, 1, 2
# What a shell reports of other programs whose output nobody reads any more.
OUTPUT_CLOSED = 128 + 13

# Each is a module of `resnet_fit.commands`, with underscores for dashes; its docstring says what it
# does.
COMMANDS = (
    "check",
    "compare",
    "doctor",
    "evaluate",
    "export",
    "find-lr",
    "list",
    "predict",
    "profile",
    "summary",
    "view",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the ``resnet-fit`` command; returns its exit code."""
    open_streams()
    try:
        return _run(sys.argv[1:] if arguments is None else list(arguments))
    except (OutputClosed, BrokenPipeError):
        return OUTPUT_CLOSED
    finally:
        with suppress(OutputClosed, RunFailed):
            close_output()  # also after an exit in the middle of a command, as by --help


def _run(arguments: list[str]) -> int:
    name = arguments[0] if arguments and not arguments[0].startswith("-") else None
    if name is not None and name not in COMMANDS:
        near = suggest(name, COMMANDS)
        complain(f"unknown command '{name}'.{near} Valid: {', '.join(COMMANDS)}")
        return USERS_MISTAKE
    if name is not None and parallel.size() > 1:
        complain(f"{name}: works in one process, not under a launcher of {parallel.size()}")
        return USERS_MISTAKE
    try:
        with warnings.catch_warnings():
            _show_warnings_in_one_line()
            if name is None:
                from resnet_fit.commands import train

                train.run(arguments, {command: _summary(command) for command in COMMANDS})
            else:
                _command(name).run(arguments[1:])
        close_output()
    except BaseException as error:
        message = told(error)
        if message is None or (isinstance(error, BrokenPipeError) and name is not None):
            raise
        complain(message)
        parallel.leave(error)
        return _exit_code(error)
    return DONE


def _command(name: str) -> Any:
    return importlib.import_module(f"resnet_fit.commands.{name.replace('-', '_')}")


def _summary(command: str) -> str:
    return (_command(command).__doc__ or "").strip().splitlines()[0].rstrip(".")


def _exit_code(error: BaseException) -> int:
    if isinstance(error, (Interrupted, LostProcess)):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return 130
    return USERS_MISTAKE if isinstance(error, UserError) else FAILED


def _show_warnings_in_one_line() -> None:
    """Warnings as this command's own words, without those of Paddle that ask for nothing."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        complain(f"warning: {message}")

    warnings.showwarning = show
    for noise in ("No ccache found", "When training, we now always track global mean"):
        warnings.filterwarnings("ignore", message=noise)
