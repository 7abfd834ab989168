"""The command line: ``resnet-fit --config FILE`` trains, and named commands do the rest."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from resnet_fit import __version__
from resnet_fit.errors import Interrupted, RunFailed, UserError, suggest, told
from resnet_fit.terminal import (
    OutputClosed,
    close_output,
    command_console,
    complain,
    open_streams,
    recording,
    say,
)

DONE, FAILED, USERS_MISTAKE = 0, 1, 2
# What a shell reports of other programs whose output nobody reads any more.
OUTPUT_CLOSED = 128 + 13

_EXAMPLES = """\
examples:
  resnet-fit --config configs/resnet18_digits.yaml
      train on scikit-learn's digits: nothing to download, done in a minute
  resnet-fit --config configs/resnet18_cifar.yaml --set training.epochs=10
      train on CIFAR-10, ten epochs instead of the file's
  resnet-fit --config configs/resnet18_folder.yaml --set data.path=photos --name first-try
      train on your own images: photos/train/<class>/*.jpg and photos/val/<class>/*.jpg
  resnet-fit --config runs/first-try/config.yaml --device gpu
      run the same experiment again
  resnet-fit --resume runs/first-try
      go on with a run that was stopped
  resnet-fit --config configs/resnet18_cifar.yaml --dry-run
      see the whole config, and what a run of it would take
  resnet-fit check --config configs/resnet18_folder.yaml --set data.path=photos
      read every image once: classes, sizes, duplicates, unreadable files
  resnet-fit view runs
      see the curves in VisualDL's web page
  resnet-fit doctor
      see what this machine has, and what makes training fast on it

exit codes: 0 done, 1 the run failed, 2 a mistake in the config or the command,
            130, 143 or 129 stopped by Ctrl-C, SIGTERM or a closed terminal, and saved
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the ``resnet-fit`` command; returns its exit code."""
    open_streams()
    try:
        return _run(sys.argv[1:] if arguments is None else list(arguments))
    except (OutputClosed, BrokenPipeError):
        return OUTPUT_CLOSED
    finally:
        with suppress(OutputClosed, RunFailed):
            close_output()  # of what was left by an exit amid it, as after --help


def _run(arguments: list[str]) -> int:
    command: Callable[[Sequence[str]], None] = train
    if arguments and not arguments[0].startswith("-"):
        name, *arguments = arguments
        if name not in COMMANDS:
            near = suggest(name, COMMANDS)
            complain(f"unknown command '{name}'.{near} Valid: {', '.join(COMMANDS)}")
            return USERS_MISTAKE
        command = COMMANDS[name]
    try:
        with warnings.catch_warnings():
            _show_warnings_in_one_line()
            command(arguments)
        close_output()
    except BaseException as error:
        message = told(error)
        if message is None or (isinstance(error, BrokenPipeError) and command is not train):
            raise
        complain(message)
        return _exit_code(error)
    return DONE


def _exit_code(error: BaseException) -> int:
    if isinstance(error, Interrupted):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return 130
    return USERS_MISTAKE if isinstance(error, UserError) else FAILED


def train(arguments: Sequence[str]) -> None:
    """Train, evaluate and log the experiment of a config."""
    parser = _Parser(
        prog="resnet-fit",
        usage="resnet-fit --config FILE [--set KEY=VALUE]... [--output DIR] [--name NAME] "
        "[--device cpu|gpu|gpu:N] [--dry-run]\n       resnet-fit --resume RUN [--set KEY=VALUE]... "
        "[--dry-run]"
        "\n       resnet-fit COMMAND ...",
        description="Train a ResNet from a YAML file. Commands: "
        + "; ".join(f"{name}: {_summary(function)}" for name, function in COMMANDS.items())
        + ".",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--config", metavar="FILE", help="the experiment; - reads standard input")
    what.add_argument("--resume", metavar="RUN", help="the folder of a run to go on with")
    _add_overrides(parser)
    parser.add_argument("--output", metavar="DIR", help="where runs go (runs)")
    parser.add_argument("--name", help="the run's name (the config's name and the time)")
    parser.add_argument("--device", metavar="cpu|gpu|gpu:N", help="same as --set training.device=")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="show the whole config, sizes, and by a few steps time and memory; write nothing",
    )
    parser.add_argument("--version", action="version", version=f"resnet-fit {__version__}")
    options = parser.parse_args(arguments)

    overrides = list(options.overrides)
    if options.device is not None:
        overrides.append(f"training.device={options.device}")
    if options.resume is not None and (options.output or options.name):
        parser.error("--output and --name do not go with --resume, which stays in the run's folder")
    if options.dry_run:
        _dry_run(options.config, options.resume, overrides)
        return
    with recording():
        if options.resume is None:
            _fit(options.config, overrides, options.output or "runs", options.name)
        else:
            _resume(options.resume, overrides)


def _fit(file: str, overrides: list[str], output: str, name: str | None) -> None:
    from resnet_fit.runs.config import load_config

    config = load_config(file, overrides)
    _start(overrides, say)
    from resnet_fit.runs.fit import fit

    fit(config, output, name or _run_name(file))


def _resume(folder: str, overrides: list[str]) -> None:
    from resnet_fit.runs.resuming import load_run_config

    load_run_config(folder, overrides)
    _start(overrides, say)
    from resnet_fit.runs.fit import resume

    resume(folder, overrides)


def _dry_run(file: str | None, run: str | None, overrides: list[str]) -> None:
    """All that is printed is one YAML document: what is not the config is in comments."""
    from resnet_fit.runs.config import dump_config, load_config
    from resnet_fit.runs.resuming import load_run_config

    if file is None:
        assert run is not None
        config = load_run_config(run, overrides)
    else:
        config = load_config(file, overrides)
    print(dump_config(config), end="", flush=True)
    _start([], print)
    from resnet_fit.reports.dry_run import dry_run
    from resnet_fit.terminal import command_console

    dry_run(config, command_console(), None if run is None else Path(run))


def _start(overrides: list[str], say: Callable[[str], object]) -> None:
    """Say what differs from the file, and wake Paddle."""
    for override in overrides:
        say(f"set {override}")
    from resnet_fit.runtime import prepare_environment

    with _ctrl_c_ends_at_once():
        prepare_environment()


@contextmanager
def _ctrl_c_ends_at_once() -> Iterator[None]:
    """For the import of Paddle, in which a KeyboardInterrupt may fall where it is swallowed."""

    def end(*_: object) -> None:
        # Not sys.stderr: it is turned away while Paddle speaks.
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


def view(arguments: Sequence[str]) -> None:
    """open VisualDL on runs"""
    parser = _Parser(prog="resnet-fit view", description="Show runs in VisualDL's web page.")
    parser.add_argument("runs", metavar="RUNS", nargs="*", default=["runs"], help="folders (runs)")
    parser.add_argument("--host", default="127.0.0.1", help="address to serve at (127.0.0.1)")
    parser.add_argument("--port", type=int, default=8040, help="port to serve at (8040)")
    options = parser.parse_args(arguments)

    from resnet_fit.reports.view import serve

    serve([Path(run) for run in options.runs], options.host, options.port)


def check(arguments: Sequence[str]) -> None:
    """go through all data of a config, without training"""
    parser = _Parser(
        prog="resnet-fit check",
        description="Read every image once: counts per class, sizes, mean and deviation, images "
        "that are in both parts, unreadable files.",
    )
    parser.add_argument(
        "--config", metavar="FILE", required=True, help="the experiment; - reads standard input"
    )
    _add_overrides(parser)
    options = parser.parse_args(arguments)

    from resnet_fit.runs.config import load_config

    config = load_config(options.config, options.overrides)
    console = command_console()
    _start(options.overrides, console.print)
    from resnet_fit.reports.check import check_data

    check_data(config, console)


def doctor(arguments: Sequence[str]) -> None:
    """show what this machine has, what was set for it, and what that brings"""
    parser = _Parser(
        prog="resnet-fit doctor",
        description="Versions, processor, memory, disk, the settings that make Paddle fast here "
        "and why, and a measurement of what each of them brings.",
    )
    parser.add_argument("--output", metavar="DIR", default="runs", help="where runs go (runs)")
    parser.add_argument("--no-measure", action="store_true", help="leave out the 20 s of timing")
    parser.add_argument("--json", action="store_true", help="one JSON object, for programs")
    options = parser.parse_args(arguments)

    from resnet_fit.reports.doctor import diagnose

    diagnose(Path(options.output), command_console(), not options.no_measure, options.json)


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "check": check,
    "doctor": doctor,
    "view": view,
}


class _Parser(argparse.ArgumentParser):
    """A parser whose mistakes are told in one line, as all others are."""

    def error(self, message: str) -> None:  # type: ignore[override]
        raise UserError(f"{message} (see {self.prog} --help)")


def _add_overrides(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE",
        dest="overrides",
        action="append",
        default=[],
        help="change one setting, such as training.epochs=5; may be repeated",
    )


def _summary(function: Callable[..., object]) -> str:
    return (function.__doc__ or "").strip().splitlines()[0].rstrip(".")


def _run_name(config: str) -> str:
    """The config's name and the time; the config of a run is named by the run's folder."""
    now = time.strftime("%Y%m%d-%H%M%S")
    if config == "-":
        return now
    path = Path(config).resolve()
    return f"{path.parent.name if path.stem == 'config' else path.stem}-{now}"


def _show_warnings_in_one_line() -> None:
    """Warnings as this command's own words, without those of Paddle that ask for nothing."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        complain(f"warning: {message}")

    warnings.showwarning = show
    for noise in ("No ccache found", "When training, we now always track global mean"):
        warnings.filterwarnings("ignore", message=noise)
