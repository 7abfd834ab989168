"""tell the classes of images, by a run or an exported ONNX file"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from resnet_fit.commands.parser import Parser, wake_paddle, whole_number
from resnet_fit.errors import UserError

if TYPE_CHECKING:
    from resnet_fit.prediction.predict import Model

EXAMPLES = """\
examples:
  resnet-fit predict runs/NAME photos
      all images in a folder and the folders in it
  resnet-fit predict runs/NAME cat.jpg --top 1
      the likeliest class alone
  find photos -name '*.jpg' | resnet-fit predict model.onnx - --format csv > classes.csv
      names of files from standard input, by an exported network, without Paddle

exit codes: 0 done, 1 some files have no prediction (each is named on standard error), 2 a mistake
            in the command
"""


def run(arguments: Sequence[str]) -> None:
    parser = Parser(
        prog="resnet-fit predict",
        usage="resnet-fit predict RUN|FILE.onnx IMAGE|FOLDER|-... [--top N] "
        "[--format text|csv|json]\n       [--checkpoint NAME] [--average] "
        "[--device cpu|gpu|gpu:N] [--batch-size N]",
        description="Names and probabilities of the likeliest classes, image by image, prepared as "
        "in the training's evaluations.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="RUN|FILE.onnx", help="a run's folder, or an ONNX file")
    parser.add_argument(
        "images",
        metavar="IMAGE|FOLDER|-",
        nargs="+",
        help="files, folders of them, or - for names of files from standard input, one a line",
    )
    parser.add_argument(
        "--top", metavar="N", type=whole_number(1), default=5, help="classes an image (5)"
    )
    parser.add_argument(
        "--format", choices=("text", "csv", "json"), default="text", help="of the output (text)"
    )
    parser.add_weights()
    parser.add_device()
    parser.add_argument(
        "--batch-size", metavar="N", type=whole_number(1), default=32, help="images at a time (32)"
    )
    options = parser.parse_args(arguments)
    if "-" in options.images and len(options.images) > 1:
        parser.error("-: standard input cannot be read beside other files and folders")

    model = _open(options)
    from resnet_fit.prediction.report import report

    report(model, options.images, options.top, options.format, options.batch_size)


def _open(options: argparse.Namespace) -> Model:
    from resnet_fit.files import require_existing
    from resnet_fit.home import expand

    place = expand(options.model)
    require_existing(place)
    if place.is_dir():
        return _open_run(place, options)
    for option in ("checkpoint", "average"):
        if getattr(options, option) is not None:
            raise UserError(
                f"--{option}: for a run; {place} is a file, which has one set of weights"
            )
    if options.device not in ("auto", "cpu"):
        raise UserError(f"--device {options.device}: an ONNX file is computed on the CPU")
    from resnet_fit.prediction.onnx_model import OnnxModel

    return OnnxModel(place)


def _open_run(place: Path, options: argparse.Namespace) -> Model:
    from resnet_fit.runs.chosen import choose
    from resnet_fit.runtime import check_device

    check_device(options.device)
    checkpoint = options.checkpoint or "best"
    choose(place, checkpoint, options.average)  # mistakes, before Paddle wakes
    wake_paddle()
    from resnet_fit.prediction.run_model import RunModel
    from resnet_fit.runs.open import open_run

    run = open_run(place, checkpoint, average=options.average, device=options.device)
    return RunModel(run)
