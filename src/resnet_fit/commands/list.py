"""show the parts that a config can name, their settings, and the configs that are there"""

from __future__ import annotations

from collections.abc import Sequence

from resnet_fit.commands.parser import Parser
from resnet_fit.config.registry import KINDS


def run(arguments: Sequence[str]) -> None:
    parser = Parser(
        prog="resnet-fit list",
        description="Parts by kind, with their settings: parts of your own as well, where your "
        "program has imported them.",
    )
    parser.add_argument(
        "kind", nargs="?", help=f"one of {', '.join(KINDS)}, or configs; all kinds by default"
    )
    parser.add_argument("--markdown", action="store_true", help="everything, as a page")
    options = parser.parse_args(arguments)

    from resnet_fit.reports.listing import list_configs, list_kinds, list_parts, markdown

    if options.markdown:
        print(markdown(), end="")
        return
    if options.kind is None:
        lines = list_kinds()
    elif options.kind == "configs":
        lines = list_configs()
    else:
        lines = list_parts(options.kind)
    for line in lines:
        print(line)
