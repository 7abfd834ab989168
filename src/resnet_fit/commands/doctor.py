"""show what this machine has, what was set for it, and what that brings"""

from __future__ import annotations

from collections.abc import Sequence

from resnet_fit.commands.parser import Parser
from resnet_fit.home import expand
from resnet_fit.terminal import command_console


def run(arguments: Sequence[str]) -> None:
    parser = Parser(
        prog="resnet-fit doctor",
        description="Versions, processor, memory, disk, the settings that make Paddle fast here "
        "and why, and a measurement of what each of them brings.",
    )
    parser.add_argument("--output", metavar="DIR", default="runs", help="where runs go (runs)")
    parser.add_argument("--no-measure", action="store_true", help="leave out the 20 s of timing")
    parser.add_argument("--json", action="store_true", help="one JSON object, for programs")
    options = parser.parse_args(arguments)

    from resnet_fit.reports.doctor import diagnose

    diagnose(expand(options.output), command_console(), not options.no_measure, options.json)
