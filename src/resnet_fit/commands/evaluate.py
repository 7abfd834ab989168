"""judge a trained network, and write a report of its mistakes"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from resnet_fit.commands.parser import Parser, wake_paddle
from resnet_fit.errors import UserError
from resnet_fit.home import expand
from resnet_fit.runtime import check_device
from resnet_fit.terminal import command_console


def run(arguments: Sequence[str]) -> None:
    parser = Parser(
        prog="resnet-fit evaluate",
        description="Judge a run's network on held-out images: accuracy, each class, confusions, "
        "calibration, the surest mistakes, labels to check, speed. Writes evaluation.json, "
        "predictions.csv, report.html and VisualDL records to RUN/evaluation/.",
    )
    parser.add_argument("run", metavar="RUN", help="the folder of a run")
    parser.add_argument(
        "--data",
        metavar="FOLDER",
        help="other images, in folders named as the classes (the run's own held-out images)",
    )
    parser.add_weights("best")
    parser.add_argument(
        "--flip",
        action="store_true",
        help="report the mean of each image and its mirror image as well",
    )
    parser.add_device()
    options = parser.parse_args(arguments)
    check_device(options.device)
    folder = expand(options.run)
    _check(folder, options.checkpoint, options.average, options.data)

    console = command_console()
    wake_paddle()
    from resnet_fit.reports.evaluate import evaluate_run

    evaluate_run(
        folder,
        console,
        data=options.data,
        checkpoint=options.checkpoint,
        average=options.average,
        flip=options.flip,
        device=options.device,
    )


def _check(folder: Path, checkpoint: str, average: bool | None, data: str | None) -> None:
    """Answer mistakes before Paddle is imported."""
    from resnet_fit.files import require_existing

    require_existing(folder)
    from resnet_fit.data.datasets.folder import held_out_folder
    from resnet_fit.runs.chosen import choose

    config = choose(folder, checkpoint, average).config
    if config.model.part_name == "given":
        raise UserError(
            f"{folder}: a program handed this run its network; in that program call "
            "evaluate(open_run(FOLDER, network=...)), from resnet_fit.evaluation"
        )
    if data is not None:
        held_out_folder(data)
    elif config.data.part_name == "given":
        raise UserError(f"{folder}: a program handed this run its images; give others by --data")
