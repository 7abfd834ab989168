"""The images of an opened run: those it is judged by, and those it was trained on."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from resnet_fit.data.dataset import Dataset
from resnet_fit.data.datasets.data import Parts
from resnet_fit.data.datasets.folder import held_out_folder, scan
from resnet_fit.data.record import Part
from resnet_fit.errors import UserError, suggest
from resnet_fit.runs.open import OpenedRun


def held_out(run: OpenedRun, folder: str | Path | None = None) -> Dataset:
    """The images to judge a network by, with their labels.

    Args:
        run: whose config says where its images are: its test set, or what its epochs were judged
            by where there is none.
        folder: other images, in class folders named as the run's classes; some of the classes will
            do. Of a folder with parts the one that is held out is taken.

    Raises:
        UserError: the images are not there or not right, or their classes are not the run's.
    """
    if folder is not None:
        return _labelled(run, held_out_folder(folder))
    parts = _parts(run)
    contents = run.record.contents
    if parts.test is None or contents.test is None:
        dataset, recorded = parts.evaluation, contents.evaluation
    else:
        dataset, recorded = parts.test, contents.test
    _warn_of_others(run, dataset, recorded)
    return dataset


def trained_on(run: OpenedRun) -> Dataset:
    """The images that a run was trained on.

    Raises:
        UserError: they are not there or not right, or their classes are not the run's.
    """
    dataset = _parts(run).train
    _warn_of_others(run, dataset, run.record.contents.train)
    return dataset


def _parts(run: OpenedRun) -> Parts:
    data = run.config.data
    if data.part_name == "given":
        raise UserError("data: a program handed this run its images; give a folder of them")
    parts = data.open()
    if parts.train.classes != run.classes:
        raise UserError(
            f"data: {len(parts.train.classes)} classes, but not those of this run; give a folder "
            "of images of its classes"
        )
    return parts


def _labelled(run: OpenedRun, root: Path) -> Dataset:
    """A folder's images, with labels into the run's classes."""
    files = scan(root)
    for name in files.classes:
        if name not in run.classes:
            raise UserError(
                f"{root}: class {name!r} is none of this run's.{suggest(name, run.classes)}"
            )
    labels = np.array([run.classes.index(name) for name in files.classes])[files.labels]
    return run.dataset(files.paths, labels)


def _warn_of_others(run: OpenedRun, dataset: Dataset, recorded: Part) -> None:
    """Say where images are not those of the training: figures would be of something else."""
    if Part.of(dataset, with_content=False).names != recorded.names:
        now, was = len(dataset), sum(recorded.images)
        warnings.warn(
            f"{getattr(run.config.data, 'path', 'data')}: not the images of this run's training: "
            f"{now:,} now, {was:,} then" + (", under other names or labels" if now == was else ""),
            stacklevel=3,
        )
