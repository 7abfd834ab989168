"""show a network's layers, size, work, memory and receptive fields"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence

from resnet_fit.commands.parser import Parser, wake_paddle, whole_number
from resnet_fit.terminal import command_console


def run(arguments: Sequence[str]) -> None:
    parser = Parser(
        prog="resnet-fit summary",
        description="The layers of a config's network with output shapes, parameters and "
        "multiply-accumulates, the memory that a training step would need, and how much of an "
        "image each stage sees. Classes and image size are those of the data, or given.",
    )
    parser.add_config()
    parser.add_argument(
        "--classes", type=whole_number(1), metavar="N", help="instead of the data's"
    )
    parser.add_argument(
        "--image", type=_shape, metavar="CxHxW", help="instead of the data's, such as 3x224x224"
    )
    parser.add_argument(
        "--batch-size",
        type=whole_number(1),
        metavar="N",
        help="of the memory's estimate (data.batch_size)",
    )
    parser.add_argument("--format", choices=("text", "json"), default="text", help="(text)")
    options = parser.parse_args(arguments)

    from resnet_fit.runs.config import load_config

    config = load_config(options.config, options.overrides)
    console = command_console()
    wake_paddle(options.overrides if options.format == "text" else (), console.print)
    from resnet_fit.reports.summary import summarize

    summary = summarize(config, options.classes, options.image, options.batch_size)
    if options.format == "json":
        console.print(summary.to_json(), end="")
    else:
        summary.print(console)


def _shape(text: str) -> tuple[int, ...]:
    sizes = tuple(map(int, text.split("x"))) if re.fullmatch(r"\d+x\d+x\d+", text) else ()
    if not sizes or 0 in sizes:
        raise argparse.ArgumentTypeError(
            f"received {text!r}, expected channels, height and width, such as 3x32x32"
        )
    return sizes
