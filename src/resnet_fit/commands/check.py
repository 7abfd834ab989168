"""go through all data of a config, without training"""

from __future__ import annotations

from collections.abc import Sequence

from resnet_fit.commands.parser import Parser, wake_paddle
from resnet_fit.terminal import command_console


def run(arguments: Sequence[str]) -> None:
    parser = Parser(
        prog="resnet-fit check",
        description="Read every image once: counts per class, sizes, mean and deviation, images "
        "that are in both parts, unreadable files.",
    )
    parser.add_config()
    options = parser.parse_args(arguments)

    from resnet_fit.runs.config import load_config

    config = load_config(options.config, options.overrides)
    console = command_console()
    wake_paddle(options.overrides, console.print)
    from resnet_fit.reports.check import check_data

    check_data(config, console)
