"""show where the time of a training step goes, by phases and layers"""

from __future__ import annotations

from collections.abc import Sequence

from resnet_fit.commands.parser import Parser, wake_paddle, whole_number
from resnet_fit.errors import UserError, command
from resnet_fit.home import expand
from resnet_fit.terminal import command_console


def run(arguments: Sequence[str]) -> None:
    parser = Parser(
        prog="resnet-fit profile",
        description="Train some steps of a config and time them: waiting for data, forward, loss, "
        "backward, optimizer, metrics, callbacks, the rest, and each layer. Nothing of the "
        "training is kept.",
    )
    parser.add_config()
    parser.add_argument(
        "--steps", type=whole_number(1), default=20, metavar="N", help="to time (20)"
    )
    parser.add_argument(
        "--top", type=whole_number(1), default=15, metavar="N", help="layers to show (15)"
    )
    parser.add_argument("--output", metavar="DIR", help="a trace of three more steps, for VisualDL")
    options = parser.parse_args(arguments)
    output = None if options.output is None else expand(options.output)
    if output is not None and output.exists() and not output.is_dir():
        raise UserError(f"--output: {output} is a file, expected a folder")

    from resnet_fit.runs.config import load_config

    config = load_config(options.config, options.overrides)
    console = command_console()
    wake_paddle(options.overrides, console.print)
    from resnet_fit.reports.profile import profile, show

    with console.status(f"{options.steps} steps, and as many with timed layers"):
        found = profile(config, options.steps, output)
    show(found, options.top, console)
    if output is not None:
        console.print(f"to see the trace: {command('view', output)}")
