"""A VisualDL record file: every record is in it or an error says so, and it can be cut."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from resnet_fit.files import naming, readable
from resnet_fit.runtime import import_visualdl

if TYPE_CHECKING:
    import visualdl

# The server shows only the newest record file of a folder, so a run must write to one name: a
# second sitting appends to it, where VisualDL's own dated names would hide the first.
RECORDS = "vdlrecords.run.log"
# Bins of a histogram.
BINS = 30


class Records:
    """Appends to the record file of a folder, which is one run for VisualDL's server.

    Args:
        folder: made if it is not there.

    Attributes:
        are_new: whether the file was not there before.
        writer: VisualDL's own, for what has no method here.

    Raises:
        OSError: from any method, if a record could not be written; it names the file.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / RECORDS
        self.are_new = not self.file.exists()
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.redirect_stdout(io.StringIO()):  # it prints where it appends
            self.writer: visualdl.LogWriter = import_visualdl().LogWriter(
                logdir=str(folder), file_name=RECORDS
            )
        self._failure: OSError | None = None
        self._notice_failures()

    def add_scalars(self, values: Mapping[str, float], step: int) -> None:
        self._require_written()
        for tag, value in values.items():
            self.writer.add_scalar(tag, float(value), step)

    def add_histogram(self, tag: str, values: np.ndarray, step: int) -> None:
        """Values of any shape. Only finite ones count; nothing is added where there are none."""
        self._require_written()
        finite = values[np.isfinite(values)]
        if finite.size:
            # The range of float32 does not fit into float32.
            self.writer.add_histogram(tag, finite.astype(np.float64), step, buckets=BINS)

    def add_image(self, tag: str, image: np.ndarray, step: int) -> None:
        """An image uint8 ``[H, W, C]`` of 1 or 3 channels."""
        self._require_written()
        self.writer.add_image(tag, image.copy(), step)  # VisualDL may change the array

    def add_text(self, tag: str, text: str) -> None:
        self._require_written()
        self.writer.add_text(tag, text, 0)

    def add_hyperparameters(self, values: Mapping[str, Any], metrics: list[str]) -> None:
        """Names and values to compare runs by, and the tags of scalars to judge them by.

        A dot in a name would leave its column empty: the page reads it as nesting.
        """
        self._require_written()
        plain = {key.replace(".", "/"): _plain(value) for key, value in values.items()}
        self.writer.add_hparams(plain, metrics)

    def flush(self) -> None:
        """Wait until all is in the file."""
        self.writer._get_file_writer().flush()
        self._require_written()

    def close(self) -> None:
        """Write what is left; a failure of before is not told again."""
        self.writer.close()

    def _notice_failures(self) -> None:
        """VisualDL writes in a thread, which prints an error and goes on without the record."""
        file = self.writer._get_file_writer()._general_file_writer
        write = file.write

        def noticed(record: bytes) -> None:
            if self._failure is None:
                try:
                    write(record)
                except OSError as error:
                    self._failure = error

        file.write = noticed

    def _require_written(self) -> None:
        if self._failure is not None:
            with naming(self.file):
                raise self._failure


def cut(folder: Path, size: int) -> None:
    """Drop what was written to a folder's record file after its first ``size`` bytes."""
    file = folder / RECORDS
    if file.exists():
        os.truncate(file, min(size, file.stat().st_size))


def _plain(value: Any) -> float | str:
    """A value as VisualDL takes it: a number or valid text, no truth value."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return readable(str(value))
    return int(value) if isinstance(value, Integral) else float(value)
