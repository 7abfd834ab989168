"""``resnet-fit --config FILE`` and ``--resume RUN``: train, evaluate and log an experiment."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from resnet_fit import __version__, parallel
from resnet_fit.commands.parser import Parser, wake_paddle
from resnet_fit.errors import UserError, require
from resnet_fit.home import expand
from resnet_fit.terminal import command_console, put, recording, say

EXAMPLES = """\
examples:
  resnet-fit --config resnet18_digits
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
  resnet-fit list optimizer
      see the optimizers and their settings
  resnet-fit check --config configs/resnet18_folder.yaml --set data.path=photos
      read every image once: classes, sizes, duplicates, unreadable files
  resnet-fit evaluate runs/first-try
      judge its network on held-out images, and write a report of its mistakes
  resnet-fit view runs
      see the curves in VisualDL's web page
  resnet-fit doctor
      see what this machine has, and what makes training fast on it

exit codes: 0 done, 1 the run failed, 2 a mistake in the config or the command,
            130, 143 or 129 stopped by Ctrl-C, SIGTERM or a closed terminal, and saved
"""


def run(arguments: Sequence[str], commands: Mapping[str, str]) -> None:
    """Train, evaluate and log the experiment of a config.

    Args:
        arguments: of the command line.
        commands: the other commands and what each does, for the help.
    """
    parser = Parser(
        prog="resnet-fit",
        usage="resnet-fit --config FILE [--set KEY=VALUE]... [--output DIR] [--name NAME] "
        "[--device cpu|gpu|gpu:N] [--processes N] [--dry-run]"
        "\n       resnet-fit --resume RUN [--set KEY=VALUE]... "
        "[--processes N] [--dry-run]"
        "\n       resnet-fit COMMAND ...",
        description="Train a ResNet from a YAML file. Commands: "
        + "; ".join(f"{name}: {summary}" for name, summary in commands.items())
        + ".",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--config", metavar="FILE", help="the experiment: a file or a name; - reads standard input"
    )
    what.add_argument("--resume", metavar="RUN", help="the folder of a run to go on with")
    parser.add_overrides()
    parser.add_argument("--output", metavar="DIR", help="where runs go (runs)")
    parser.add_argument("--name", help="the run's name (the config's name and the time)")
    parser.add_argument("--device", metavar="cpu|gpu|gpu:N", help="same as --set training.device=")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="show the whole config, sizes, and by a few steps time and memory; write nothing",
    )
    parser.add_argument(
        "--processes",
        metavar="N",
        type=int,
        default=1,
        help="train by so many processes, each with its share of the cores or a GPU of its own",
    )
    parser.add_argument("--version", action="version", version=f"resnet-fit {__version__}")
    options = parser.parse_args(arguments)

    overrides = list(options.overrides)
    if options.device is not None:
        overrides.append(f"training.device={options.device}")
    if options.resume is not None and (options.output or options.name):
        parser.error("--output and --name do not go with --resume, which stays in the run's folder")
    started = parallel.size()  # by a launcher, of which this is one
    if started > 1 and options.processes not in (1, started):
        raise UserError(
            f"--processes: received {options.processes}, expected {started}, as many as the "
            "launcher has started"
        )
    if options.processes != 1 and started == 1:
        _train_by(options.processes, options, overrides)
        return
    if options.dry_run:
        _dry_run(options.config, options.resume, overrides)
        return
    with recording():
        if options.resume is None:
            _fit(options.config, overrides, options.output or "runs", options.name)
        else:
            _resume(options.resume, overrides)


def _train_by(processes: int, options: argparse.Namespace, overrides: list[str]) -> None:
    """Check the config here, where a mistake is told at once, and then train by so many."""
    from resnet_fit.runs.config import load_config, without_warnings
    from resnet_fit.runs.launch import launch
    from resnet_fit.runs.processes import check_processes
    from resnet_fit.runs.resuming import load_run_config

    require(processes >= 1, "--processes", processes, "1 or more")
    if options.dry_run or options.config == "-":
        raise UserError("--processes: not with --dry-run, nor with a config from standard input")
    with without_warnings():
        if options.resume is None:
            config = load_config(options.config, overrides)
        else:
            config = load_run_config(options.resume, overrides)
    check_processes(config, processes)
    code = launch(sys.orig_argv, processes)
    if code:
        raise SystemExit(code)


def _fit(file: str, overrides: list[str], output: str, name: str | None) -> None:
    from resnet_fit.runs.config import load_config

    config = load_config(file, overrides)
    wake_paddle(overrides, say)
    from resnet_fit.runs.fit import fit

    fit(config, output, name or _run_name(file), numbered=name is None)


def _resume(folder: str, overrides: list[str]) -> None:
    from resnet_fit.runs.config import without_warnings
    from resnet_fit.runs.resuming import load_run_config

    if parallel.is_first():  # other machines need not have the folder
        with without_warnings():
            load_run_config(folder, overrides)  # a mistake is told before Paddle is imported
    wake_paddle(overrides, say)
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
    put(dump_config(config))
    wake_paddle()
    from resnet_fit.reports.dry_run import dry_run

    dry_run(config, command_console(), None if run is None else expand(run))


def _run_name(config: str) -> str:
    """The config's name and the time; the config of a run is named by the run's folder.

    Of a config from standard input or a pipe the time alone.
    """
    now = time.strftime("%Y%m%d-%H%M%S")
    path = Path(config)
    if config == "-" or (path.exists() and not path.is_file()):
        return now
    path = path.resolve()
    stem = path.parent.name if path.stem == "config" else path.stem
    return re.sub(r"[^\w.+=@-]+", "-", f"{stem}-{now}")
