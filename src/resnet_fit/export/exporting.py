"""Exports a run's network: converted, verified and timed in a temporary folder, then installed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import get_args

import paddle
from paddle import nn

from resnet_fit import __version__
from resnet_fit.backends import threads
from resnet_fit.errors import RunFailed, UserError
from resnet_fit.export import checking, latency, onnx_file
from resnet_fit.export.agreement import Agreement
from resnet_fit.export.graph import graph_of, save
from resnet_fit.export.metadata import ONNX_KEY, Metadata
from resnet_fit.export.normalisation import normalisation
from resnet_fit.export.quantizing import quantize
from resnet_fit.export.request import Format, Input, check_request
from resnet_fit.export.running import Running
from resnet_fit.files import write, write_text
from resnet_fit.home import expand
from resnet_fit.machine import usable_cores
from resnet_fit.runs.open import OpenedRun, open_run

METADATA = "model.meta.json"
# The files of each format; the one that programs open is the last.
FILES = {
    "onnx": ("model.int8.onnx", "model.onnx"),
    "paddle": ("model.pdiparams", "model.pdiparams.info", "model.pdmodel", "model.json"),
}


@dataclass(frozen=True)
class Exported:
    """The result of an export; a "side" is one exported form, such as ``onnx`` or ``int8``.

    Attributes:
        file: the file that programs open.
        metadata: its metadata.
        sizes: bytes of all files of each side.
        agreements: of each side with the network of the run.
        seconds: median time of a batch, by side and batch size.
    """

    file: Path
    metadata: Metadata
    sizes: dict[str, int]
    agreements: dict[str, Agreement]
    seconds: dict[str, dict[int, float]]


@contextmanager
def _device_kept() -> Iterator[None]:
    """Paddle's device is afterwards the one of before: `open_run` chooses another one."""
    device = paddle.get_device()
    try:
        yield
    finally:
        paddle.set_device(device)


@_device_kept()
def export_run(
    folder: str | Path,
    format: Format = "onnx",
    input: Input = "uint8",
    *,
    checkpoint: str = "best",
    average: bool | None = None,
    int8: bool = False,
    data: str | Path | None = None,
    output: str | Path | None = None,
    network: nn.Layer | None = None,
    say: Callable[[str], object] = lambda _: None,
) -> Exported:
    """Export the network of a run to a file for other programs, and verify its outputs.

    Args:
        folder: the run's folder.
        format: ``onnx``, or ``paddle`` for paddle.inference.
        input: ``uint8``: pixel values 0 to 255, ``[N, H, W, C]``, normalised inside the file;
            ``float32``: ``[N, C, H, W]``, which the program normalises as in the training.
        checkpoint, average, network: as in `resnet_fit.open_run`.
        int8: also write an ONNX file quantised to 8 bits.
        data: a folder of images for the check, instead of the run's own.
        output: the folder to write to; by default ``export`` in the run's folder.
        say: called with progress messages.

    Raises:
        UserError: no such run, its images are missing, or it cannot be exported this way.
        RunFailed: the conversion failed, or the exported network gives other results. No file is
            written then.
    """
    check_request(format, input, int8)
    folder = expand(folder)
    run = open_run(folder, checkpoint, network=network, average=average, device="cpu")
    metadata = metadata_of(run, input, folder, checkpoint)
    dataset = checking.images_to_check(run, None if data is None else expand(data))
    calibration = checking.images_to_calibrate(run, metadata) if int8 else None
    output = folder / "export" if output is None else expand(output)
    _require_folder(output)
    _refuse_mixture(output, format, metadata)
    # A temporary folder: Paddle cannot write to every path, and unverified files must not be left.
    with tempfile.TemporaryDirectory(prefix="resnet-fit-") as temporary:
        place = Path(temporary)
        say(f"writing {format}" + (", the averaged weights" if run.is_average else ""))
        sides: dict[str, tuple[Path, ...]] = {format: _write(run, metadata, format, place)}
        if calibration is not None:
            say(f"calibrating int8 on {len(calibration)} training images")
            quantized = place / FILES["onnx"][0]
            quantize(sides[format][0], calibration, quantized)
            sides["int8"] = (quantized,)
        say(f"checking on {len(dataset):,} images")
        with ExitStack() as stack:
            running = {
                name: stack.enter_context(closing(Running(files, _threads())))
                for name, files in sides.items()
            }
            agreements = checking.check(run, metadata, dataset, running)
            _require(agreements[format])
            seconds = latency.measure(run, metadata, dataset, running)
        sizes = {name: sum(f.stat().st_size for f in files) for name, files in sides.items()}
        _install(place, output, format)
    return Exported(output / sides[format][0].name, metadata, sizes, agreements, seconds)


def _threads() -> int:
    """How many threads the network of the run computes with; all cores where that is unknown."""
    try:
        return threads()
    except UserError:
        return usable_cores()


def metadata_of(run: OpenedRun, input: Input, folder: Path, checkpoint: str) -> Metadata:
    """The metadata of a run's exported network.

    Raises:
        UserError: ``input`` is ``uint8``, so `Normalize` is part of the network, but an operation
            follows it.
    """
    before = run.record.preprocessing
    if input == "uint8":
        before = before[: normalisation(run)[0]]
    return Metadata(
        format=1,
        output="probabilities",
        classes=run.classes,
        input=input,
        image_shape=run.record.image_shape,
        stored_shape=run.record.stored_shape,
        preprocessing=before,
        run=folder.resolve().name,
        checkpoint=checkpoint,
        epoch=run.epoch,
        average=run.is_average,
        resnet_fit=__version__,
        paddle=paddle.__version__,
    )


def _write(run: OpenedRun, metadata: Metadata, format: Format, place: Path) -> tuple[Path, ...]:
    """Write the files of a format and the metadata; returns the files of the network."""
    text = place / METADATA
    write_text(text, metadata.to_json())
    files = save(graph_of(run, metadata.input), metadata.image_shape, place / "model")
    if format == "paddle":
        return files
    onnx = place / "model.onnx"
    onnx_file.convert(*files, text, ONNX_KEY, onnx)
    return (onnx,)


def _require(agreement: Agreement) -> None:
    if agreement.holds:
        return
    raise RunFailed(
        "not exported: the file gives other results than the network: over "
        f"{agreement.images:,} images the largest relative difference of a probability is "
        f"{agreement.difference:.2g} (allowed {agreement.allowed:.2g}), the most probable class "
        f"differs for {agreement.images - agreement.same:,}; accuracy "
        f"{agreement.right_exported / agreement.images:.2%} instead of "
        f"{agreement.right / agreement.images:.2%}"
    )


def _refuse_mixture(output: Path, format: Format, metadata: Metadata) -> None:
    """Refuse a folder that has an export in the other format with other metadata.

    Raises:
        UserError: it has one.
    """
    (other,) = (name for name in get_args(Format) if name != format)
    there = [name for name in FILES[other] if (output / name).exists()]
    if not there or not (output / METADATA).exists():
        return
    if (output / METADATA).read_text(encoding="utf-8") != metadata.to_json():
        raise UserError(
            f"{output}: has an export with other metadata ({there[-1]}); delete it, or choose "
            "another --output"
        )


def _require_folder(output: Path) -> None:
    """Check that the output folder can be written to, before the work starts.

    Raises:
        UserError: it is a file, or cannot be created or written to.
    """
    nearest = next(place for place in (output, *output.parents) if place.exists())
    if not nearest.is_dir():
        raise UserError(f"{nearest}: not a folder; see --output")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UserError(f"{nearest}: no permission to write there; see --output")


def _install(place: Path, output: Path, format: Format) -> None:
    """Move verified files to the output folder.

    Old files are deleted first, so that program and weights of two exports are never mixed.
    """
    output.mkdir(parents=True, exist_ok=True)
    for name in FILES[format]:
        (output / name).unlink(missing_ok=True)
    for name in (METADATA, *FILES[format]):
        if (place / name).exists():
            write(output / name, partial(shutil.copyfile, place / name))
