"""lay runs side by side: the settings that differ, and what came out"""

from __future__ import annotations

from collections.abc import Sequence

from resnet_fit.commands.parser import Parser, picture_file
from resnet_fit.errors import check_choice
from resnet_fit.home import expand
from resnet_fit.terminal import command_console

FORMATS = ("text", "markdown", "json")


def run(arguments: Sequence[str]) -> None:
    parser = Parser(
        prog="resnet-fit compare",
        description="The settings in which runs differ, the last and the best value of each "
        "metric, epochs, time, speed and size. Unfinished runs are compared as far as they are.",
    )
    parser.add_argument(
        "runs", metavar="RUN", nargs="+", help="a run's folder, or a folder with runs below it"
    )
    parser.add_argument(
        "--by",
        metavar="METRIC",
        help="sort by eval.top1, best.eval.top1, minutes, ...; a wrong name lists them all",
    )
    parser.add_argument(
        "--format", metavar="|".join(FORMATS), default="text", help="of what is printed (text)"
    )
    parser.add_argument(
        "--output",
        type=picture_file,
        metavar="FILE",
        help="draw the curves over each other: .png, .svg or .pdf",
    )
    options = parser.parse_args(arguments)
    check_choice("--format", options.format, FORMATS)

    from resnet_fit.reports.compare import compare, read_runs
    from resnet_fit.reports.compare_formats import as_json, as_markdown, as_text
    from resnet_fit.reports.curves import draw, worth_drawing

    comparison = compare(read_runs(map(expand, options.runs)), options.by)
    console = command_console()
    if options.format == "json":
        text = as_json(comparison)
    elif options.format == "markdown":
        text = as_markdown(comparison)
    else:
        text = as_text(comparison, console.width if console.is_terminal else None)
    if options.output is not None:
        draw(comparison.runs, options.output, worth_drawing(options.by))
    console.print(text, end="")
