"""lay runs side by side: the settings that differ, and what came out"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from resnet_fit.commands.parser import Parser
from resnet_fit.errors import UserError, check_choice
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
    parser.add_argument("--output", metavar="FILE.png", help="draw the curves over each other")
    options = parser.parse_args(arguments)
    check_choice("--format", options.format, FORMATS)
    picture = None if options.output is None else _picture(options.output)

    from resnet_fit.reports.compare import compare, read_runs
    from resnet_fit.reports.compare_formats import as_json, as_markdown, as_text
    from resnet_fit.reports.curves import draw, worth_drawing

    comparison = compare(read_runs(map(Path, options.runs)), options.by)
    console = command_console()
    if options.format == "json":
        text = as_json(comparison)
    elif options.format == "markdown":
        text = as_markdown(comparison)
    else:
        text = as_text(comparison, console.width if console.is_terminal else None)
    if picture is not None:
        draw(comparison.runs, picture, worth_drawing(options.by))
    console.print(text, end="")


def _picture(name: str) -> Path:
    """Where the picture goes, checked before anything is read."""
    file = Path(name)
    if file.suffix != ".png":
        raise UserError(f"--output: received '{name}', expected a name that ends in .png")
    if not file.parent.is_dir():
        raise UserError(f"--output: there is no folder {file.parent}")
    return file
