"""Writes an evaluation to a folder, which is replaced as a whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from resnet_fit.errors import RunFailed, UserError
from resnet_fit.evaluation.evaluation import Evaluation
from resnet_fit.evaluation.records import write_records
from resnet_fit.evaluation.report import render_report
from resnet_fit.evaluation.tables import as_document, write_predictions
from resnet_fit.files import beside, replacing, write_json, write_text
from resnet_fit.home import expand

DOCUMENT, PREDICTIONS, REPORT, RECORDS = (
    "evaluation.json",
    "predictions.csv",
    "report.html",
    "visualdl",
)


def save(evaluation: Evaluation, folder: str | Path) -> None:
    """Write ``evaluation.json``, ``predictions.csv``, ``report.html`` and ``visualdl/``.

    The old content of ``folder`` is replaced only after all files are written.

    Raises:
        UserError: ``folder`` has other content than an evaluation.
        RunFailed: they cannot be written, or VisualDL cannot be imported.
    """
    folder = expand(folder)
    check_folder(folder)
    with _replacing(folder) as part:
        write_json(part / DOCUMENT, as_document(evaluation))
        write_predictions(evaluation, part / PREDICTIONS)
        write_text(part / REPORT, render_report(evaluation))
        write_records(evaluation, part / RECORDS)


def check_folder(folder: Path) -> None:
    """Refuse a folder that an evaluation cannot take the place of.

    Raises:
        UserError: it has other content than an evaluation.
    """
    if folder.exists() and not (folder / DOCUMENT).is_file() and any(folder.iterdir()):
        raise UserError(f"{folder}: holds no evaluation, so it is not replaced by one")


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``folder``, which replaces it after the block."""
    previous = beside(folder, "previous")
    try:
        if previous.exists() and not folder.exists():  # killed while it was replaced
            os.replace(previous, folder)
        with replacing(folder) as part:
            yield part
    except OSError as error:
        place = error.filename or folder
        raise RunFailed(
            f"{place}: the evaluation could not be written ({error.strerror or error})"
        ) from error
    finally:
        if folder.exists():
            shutil.rmtree(previous, ignore_errors=True)
