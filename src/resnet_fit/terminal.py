"""Output: standard output, standard error, and the log of a run.

Text is written without rich's markup, since names and paths may look like it. If nobody reads the
output any more, as behind ``| head``, a training goes on, and other commands end quietly.
"""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NoReturn, TextIO, cast

from resnet_fit.errors import Interrupted, RunFailed, told
from resnet_fit.run_log import RunLog

if TYPE_CHECKING:
    from rich.console import Console

# From this terminal width on, continuation lines are aligned below the first piece.
ROOMY = 80

_log: ContextVar[RunLog | None] = ContextVar("the log of this thread's run", default=None)


class OutputClosed(Exception):
    """The reader of a command's output has closed it, as ``| head`` does."""


def say(text: str) -> None:
    """Write lines of a training to standard output and to its log."""
    record(text)
    error = _write(sys.stdout, f"{text}\n")
    if error is not None:
        _go_on(error)


def note(message: str) -> None:
    """Write a message to standard error and to the log of the run."""
    record(message)
    complain(message)


def complain(message: str) -> None:
    """Write a message to standard error, if it is open."""
    _write(sys.stderr, "".join(f"resnet-fit: {line}\n" for line in message.splitlines()))


def record(text: str) -> None:
    """Write lines only to the log of the run, if there is one."""
    log = _log.get()
    if log is not None:
        log.write(text)


@contextmanager
def recording() -> Iterator[RunLog]:
    """Log the output of the block, with its warnings and the error that ends it.

    Lines from before the log is opened in the run's folder are kept and written then.
    """
    outer = _log.get()
    if outer is not None and not outer.is_open:
        yield outer
        return
    log = RunLog(complain)
    token = _log.set(log)
    show = warnings.showwarning

    def record_and_show(message: Warning | str, *details: Any, **more: Any) -> None:
        record(f"warning: {message}")
        show(message, *details, **more)

    warnings.showwarning = record_and_show
    try:
        yield log
    except BaseException as error:
        reason = told(error) or "".join(traceback.format_exception(error))
        wanted = isinstance(error, (Interrupted, KeyboardInterrupt))
        log.write(reason if wanted else f"error: {reason}")
        raise
    finally:
        warnings.showwarning = show
        _log.reset(token)
        log.close()


def training_console() -> Console:
    """Standard output of a training, which goes on if the output is closed."""
    return _console(_go_on)


def command_console() -> Console:
    """Standard output of a command, which ends if the output is closed: see `OutputClosed`."""
    return _console(_end)


def status_console() -> Console:
    """Standard error, for a live line while standard output goes to a file or program."""
    from rich.console import Console

    shown = sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty()
    return Console(stderr=True, force_terminal=shown, highlight=False)


def put(text: str) -> None:
    """Write a command's output unchanged, bypassing a live line; see `OutputClosed`."""
    error = _write(getattr(sys.stdout, "rich_proxied_file", sys.stdout), text)
    if error is not None:
        _end(error)


def packed(pieces: Sequence[str], width: int | None = None) -> list[str]:
    """Wrap the pieces of a line to ``width``; lines after the first are indented."""
    if width is None:
        return ["  ".join(pieces)]
    from rich.cells import cell_len

    lines = [pieces[0]]
    indent = " " * (cell_len(pieces[0]) if width >= ROOMY else 0)
    for piece in pieces[1:]:
        if cell_len(lines[-1]) + 2 + cell_len(piece) < width:
            lines[-1] += f"  {piece}"
        else:
            lines.append(f"{indent}  {piece}")
    return lines


def padded(text: str, width: int, right: bool = False) -> str:
    """Fill a text with spaces to ``width`` columns of a terminal; Chinese characters take two.

    Args:
        right: whether to align it to the right.
    """
    from rich.cells import cell_len

    space = " " * (width - cell_len(text))
    return space + text if right else text + space


def open_streams() -> None:
    """Replace standard streams that were closed before the start, as by ``>&-``.

    Otherwise the next opened file gets the number of the stream, and output is written into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest free number
            setattr(sys, name, open(number, "w" if number else "r"))  # noqa: SIM115


@contextmanager
def no_standard_error() -> Iterator[None]:
    """In the block, nothing is written to standard error, by C++ code either."""
    before, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(nothing)


def close_output() -> None:
    """Flush standard output, which Python does at exit without reporting a failure.

    Raises:
        OutputClosed: the reader has closed it.
        RunFailed: it cannot be written, for another reason.
    """
    error = _write(sys.stdout, "")
    if error is not None:
        _end(error)


class _Output:
    """Standard output as a file for `rich`, bypassing the proxy that rich installs.

    ``failed`` is called with the first error; after it nothing more is written.
    """

    encoding = property(lambda self: getattr(sys.stdout, "encoding", None) or "utf-8")

    def __init__(self, failed: Callable[[Exception], object]) -> None:
        self._failed = failed

    def write(self, text: str) -> int:
        error = _write(getattr(sys.stdout, "rich_proxied_file", sys.stdout), text)
        if error is not None:
            self._failed(error)
        return len(text)

    def flush(self) -> None:
        """Nothing to do: `write` flushes."""

    def isatty(self) -> bool:
        return sys.stdout is not None and not sys.stdout.closed and sys.stdout.isatty()


def _console(failed: Callable[[Exception], object]) -> Console:
    from rich.console import Console

    output = _Output(failed)
    return Console(
        file=cast(TextIO, output),
        force_terminal=output.isatty(),  # overrides FORCE_COLOR: a file must not get a live line
        highlight=False,
        soft_wrap=True,
        markup=False,
        emoji=False,
    )


def _write(stream: TextIO | None, text: str) -> Exception | None:
    """Write and flush. On failure return the error and redirect the stream to the null device."""
    if stream is None:
        return None
    try:
        try:
            stream.write(text)
        except UnicodeEncodeError as error:  # file names may have any bytes
            stream.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))
        stream.flush()
    except RuntimeError:  # a signal handler writes while this stream is being written
        return None
    except (OSError, ValueError) as error:  # ValueError: the stream is closed
        with suppress(OSError, ValueError):
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, stream.fileno())
            os.close(nothing)
        return error
    return None


def _go_on(error: Exception) -> None:
    note(f"standard output: {_reason(error)}; the run goes on, and its run.log has these lines")


def _end(error: Exception) -> NoReturn:
    if isinstance(error, BrokenPipeError):
        raise OutputClosed
    raise RunFailed(f"standard output: {_reason(error)}")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
