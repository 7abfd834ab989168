"""A run's network judged: the main figures in the terminal, the rest in ``RUN/evaluation/``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.text import Text

from resnet_fit.evaluation import Evaluation, evaluate, save
from resnet_fit.evaluation.figures import ClassFigures, macro_means, worst_classes
from resnet_fit.evaluation.folder import REPORT, check_folder
from resnet_fit.evaluation.report import number, percent
from resnet_fit.files import readable
from resnet_fit.live_line import Column, LiveLine
from resnet_fit.reports.table import print_table
from resnet_fit.runs.open import open_run
from resnet_fit.runtime import import_visualdl

FOLDER = "evaluation"
# Rows of the tables of classes and confusions.
SHOWN = 5
# Columns of a terminal below which it is narrow.
NARROW = 60


def evaluate_run(
    folder: Path,
    console: Console,
    *,
    data: str | None = None,
    checkpoint: str = "best",
    average: bool | None = None,
    flip: bool = False,
    device: str = "auto",
) -> Evaluation:
    """Judge a checkpoint of a run, write what is found to ``RUN/evaluation/``, and print the most.

    Args:
        data: a folder of other images than the run's held-out ones.
        checkpoint, average, device: as `open_run` takes them.
        flip: report the mean with mirror images as well.

    Raises:
        UserError: there is no such run or checkpoint, or the images are not right.
        RunFailed: outputs are NaN or infinite, or nothing can be written.
    """
    import_visualdl()  # mistakes are told before the work
    check_folder(folder / FOLDER)
    run = open_run(folder, checkpoint, average=average, device=device)
    with _live_line(console) as progress:
        evaluation = evaluate(run, data, flip=flip, progress=progress)
    print_evaluation(evaluation, console)
    save(evaluation, folder / FOLDER)
    console.print(Text(readable(f"report: {folder / FOLDER / REPORT}")))
    return evaluation


def print_evaluation(evaluation: Evaluation, console: Console) -> None:
    """The main figures, the worst classes, and the most frequent confusions."""
    source, found = evaluation.source, evaluation.predictions
    console.print(
        readable(
            f"{source['run']}, checkpoint {source['checkpoint']} of epoch {source['epoch']}, "
            f"{source['weights']} weights, on {len(found):,} images: {source['data']}"
        )
    )
    _print_figures(evaluation, console)
    worst = worst_classes(evaluation.classes, SHOWN)
    if worst:
        _print_classes(worst, console)
    if evaluation.confusions:
        _print_confusions(evaluation, console)
    suspects = len(evaluation.suspects)
    if suspects:
        console.print(f"{suspects} label{'s' * (suspects > 1)} to check: see the report")


def _print_figures(evaluation: Evaluation, console: Console) -> None:
    figures, calibration = evaluation.figures, evaluation.calibration
    low, high = figures["top1_interval"]
    rows = [("top-1", percent(figures["top1"]), f"95 % interval {percent(low)} to {percent(high)}")]
    if "top5" in figures:
        rows.append(("top-5", percent(figures["top5"]), ""))
    rows.append(("loss", number(figures["loss"]), ""))
    for name in [name for name in figures if name.startswith("flip_")]:
        show = number if name.endswith("loss") else percent
        rows.append((name, show(figures[name]), "mean with mirror images"))
    f1 = macro_means(evaluation.classes)["f1"]
    rows.append(("macro F1", percent(f1), ""))
    at = calibration.temperature
    best = "" if at is None else f"best temperature {at:.2f}"
    rows.append(("ECE", percent(calibration.ece), best))
    for speed in evaluation.speed:
        what = f"{speed['milliseconds']:,.1f} ms a batch of {speed['batch_size']}"
        rows.append(("network", f"{speed['images_per_second']:,.0f} img/s", what))
    print_table(console, None, rows, numbers=[1])


def _print_classes(classes: list[ClassFigures], console: Console) -> None:
    """The worst classes; a narrow terminal has room for one figure of each."""
    narrow = console.is_terminal and console.width < NARROW
    figures = {"f1": "F1"} if narrow else {"precision": "precision", "recall": "recall", "f1": "F1"}
    rows = [
        (
            readable(c.name),
            f"{c.images:,}",
            *(percent(getattr(c, figure), 1) for figure in figures),
        )
        for c in classes
    ]
    header = ("worst classes", "images", *figures.values())
    print_table(console, header, rows, numbers=range(1, len(header)))


def _print_confusions(evaluation: Evaluation, console: Console) -> None:
    rows = [
        (readable(c.label), readable(c.prediction), f"{c.images:,} ({percent(c.share, 0)})")
        for c in evaluation.confusions[:SHOWN]
    ]
    print_table(console, ("label", "taken for", "images"), rows, numbers=[2])


@contextmanager
def _live_line(console: Console) -> Iterator[Callable[[int, int], None]]:
    """How far it is, at the foot of a terminal."""
    line = LiveLine(console)
    begun = time.perf_counter()

    def show(done: int, images: int) -> None:
        speed = done / (time.perf_counter() - begun)
        columns = [Column(f"{done:,}/{images:,}", 2), Column(f"{speed:,.0f} img/s", 4)]
        line.update(done / images, columns)

    line.begin("evaluate")
    try:
        yield show
    finally:
        line.close()
