"""find a learning rate by a short test of rates that grow"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

from resnet_fit.commands.parser import Parser, picture_file, wake_paddle, whole_number
from resnet_fit.terminal import command_console


def run(arguments: Sequence[str]) -> None:
    parser = Parser(
        prog="resnet-fit find-lr",
        description="The learning-rate range test: train a new network for some steps while the "
        "rate grows, watch the loss, and suggest a value of optimizer.learning_rate. Nothing of "
        "the training is kept.",
    )
    parser.add_config()
    parser.add_argument(
        "--from", type=_rate, default=1e-5, dest="first", metavar="RATE", help="(1e-5)"
    )
    parser.add_argument("--to", type=_rate, default=10.0, dest="last", metavar="RATE", help="(10)")
    parser.add_argument("--steps", type=whole_number(10), default=100, metavar="N", help="(100)")
    parser.add_argument(
        "--output", type=picture_file, metavar="FILE", help="a plot: .png, .svg or .pdf"
    )
    options = parser.parse_args(arguments)
    if options.first >= options.last:
        parser.error(
            f"--from: received {options.first:g}, expected less than --to {options.last:g}"
        )

    from resnet_fit.runs.config import load_config

    config = load_config(options.config, options.overrides)
    console = command_console()
    wake_paddle(options.overrides, console.print)
    from resnet_fit.reports.lr_plot import plot, show
    from resnet_fit.reports.lr_range import find_lr

    with console.status(f"up to {options.steps} steps"):
        found = find_lr(config, options.first, options.last, options.steps)
    if options.output is not None:
        plot(found, options.output)
    show(found, config, console)


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < math.inf:
        raise argparse.ArgumentTypeError(f"received {text!r}, expected a number above 0")
    return rate
