"""write a run's network for other programs, checked against the network"""

from __future__ import annotations

from collections.abc import Sequence

from resnet_fit.commands.parser import Parser, wake_paddle
from resnet_fit.files import require_existing
from resnet_fit.home import expand
from resnet_fit.terminal import command_console


def run(arguments: Sequence[str]) -> None:
    parser = Parser(
        prog="resnet-fit export",
        description="Write a trained network as an ONNX file or in Paddle's format, with its "
        "normalisation and the names of its classes, and compare it with the network on the run's "
        "held-out images. If they disagree, no file is written.",
    )
    parser.add_argument("run", metavar="RUN", help="the run's folder")
    parser.add_argument("--format", default="onnx", help="onnx or paddle (onnx)")
    parser.add_argument(
        "--input",
        default="uint8",
        help="uint8: pixel values 0 to 255, [N, H, W, C], normalised within the file; float32: "
        "[N, C, H, W], normalised as in the training before (uint8)",
    )
    parser.add_argument(
        "--int8", action="store_true", help="a second ONNX file, of eight-bit numbers"
    )
    parser.add_weights("best")
    parser.add_argument("--data", metavar="FOLDER", help="check on these images, in class folders")
    parser.add_argument("--output", metavar="FOLDER", help="where to (RUN/export)")
    options = parser.parse_args(arguments)

    from resnet_fit.export.request import check_request

    check_request(options.format, options.input, options.int8)
    folder = expand(options.run)
    require_existing(folder)
    from resnet_fit.runs.chosen import choose

    choose(folder, options.checkpoint, options.average)  # mistakes, before Paddle wakes
    console = command_console()
    wake_paddle()
    from resnet_fit.export.exporting import export_run
    from resnet_fit.reports.export import show

    exported = export_run(
        folder,
        options.format,
        options.input,
        checkpoint=options.checkpoint,
        average=options.average,
        int8=options.int8,
        data=options.data,
        output=options.output,
        say=console.print,
    )
    show(exported, console)
