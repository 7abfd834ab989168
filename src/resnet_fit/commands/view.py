"""open VisualDL on runs"""

from __future__ import annotations

from collections.abc import Sequence

from resnet_fit.commands.parser import Parser
from resnet_fit.home import expand


def run(arguments: Sequence[str]) -> None:
    parser = Parser(prog="resnet-fit view", description="Show runs in VisualDL's web page.")
    parser.add_argument("runs", metavar="RUNS", nargs="*", default=["runs"], help="folders (runs)")
    parser.add_argument("--host", default="127.0.0.1", help="address to serve at (127.0.0.1)")
    parser.add_argument("--port", type=int, default=8040, help="port to serve at (8040)")
    options = parser.parse_args(arguments)

    from resnet_fit.reports.view import serve

    serve([expand(run) for run in options.runs], options.host, options.port)
