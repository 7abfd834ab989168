"""The output of ``resnet-fit predict``: results on standard output, errors on standard error."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from resnet_fit.errors import RunFailed, UserError
from resnet_fit.live_line import Column, LiveLine
from resnet_fit.prediction.files import batches_of, batches_of_lines, named_files
from resnet_fit.prediction.formats import FORMATS, Layout, Row
from resnet_fit.prediction.predict import Model, predict
from resnet_fit.terminal import complain, put, status_console

STDIN = "-"


def report(
    model: Model, images: Sequence[str], top: int = 5, form: str = "text", batch_size: int = 32
) -> None:
    """Predict the classes of images and write results batch by batch, in the given order.

    Args:
        model: the network.
        images: files and folders; ``-`` alone reads file names from standard input.
        top: how many classes of each image, the most probable first.
        form: one of `FORMATS`.
        batch_size: images in a batch.

    Raises:
        UserError: a folder without images.
        RunFailed: some files have no prediction; each was reported on standard error.
    """
    files: list[str] = []
    if list(images) == [STDIN]:
        batches, ahead = batches_of_lines(sys.stdin, batch_size), 0
    else:
        files = named_files(images)
        batches, ahead = batches_of(files, batch_size), 1
    to_terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if to_terminal else None
    layout = Layout.of(min(top, len(model.classes)), files, model.classes, width)
    progress = _Progress(len(files), shown=not to_terminal)
    try:
        for piece in FORMATS[form](_rows(model, batches, ahead, layout.top, progress), layout):
            put(piece)
    finally:
        progress.line.close()
    if progress.bad:
        raise RunFailed(f"files without a prediction: {progress.bad} of {progress.seen}")


@dataclass
class _Progress:
    """Counts files, and shows the progress if the output goes to a file or another program.

    Attributes:
        total: the number of files; 0 if unknown.
        shown: whether to show the progress; not on a terminal that shows the predictions.
    """

    total: int
    shown: bool
    seen: int = 0
    bad: int = 0

    def __post_init__(self) -> None:
        self.line = LiveLine(status_console())
        self._begun = time.perf_counter()
        if self.shown:
            self.line.begin("predict")

    def count(self, is_bad: bool) -> None:
        self.seen += 1
        self.bad += is_bad
        if self.line.is_shown:
            speed = self.seen / (time.perf_counter() - self._begun)
            of = f"/{self.total:,}" if self.total else ""
            columns = [Column(f"{self.seen:,}{of}", 1), Column(f"{speed:,.0f} img/s", 2)]
            self.line.update(self.seen / self.total if self.total else 0.0, columns)


def _rows(
    model: Model, batches: Iterable[Sequence[str]], ahead: int, top: int, progress: _Progress
) -> Iterator[Row]:
    """A row for each file that has a prediction; errors of the others are reported."""
    for file, found in predict(model, batches, ahead):
        progress.count(isinstance(found, UserError))
        if isinstance(found, UserError):
            complain(" ".join(str(found).splitlines()))
        else:
            yield Row.of(file, found, model.classes, top)
