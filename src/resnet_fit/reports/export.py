"""Prints the result of an export."""

from __future__ import annotations

import warnings

from rich.console import Console

from resnet_fit.export.agreement import Agreement
from resnet_fit.export.exporting import METADATA, Exported
from resnet_fit.export.latency import BATCHES, HERE
from resnet_fit.files import readable
from resnet_fit.reports.table import print_table

# The runtime of each side.
PROGRAMS = {"onnx": "onnxruntime", "paddle": "paddle.inference", "int8": "onnxruntime, int8"}
# A larger loss of accuracy by int8, in percentage points, gives a warning.
POINTS = 1.0


def show(exported: Exported, console: Console) -> None:
    """Print agreement with the network, accuracy, size and latency."""
    metadata = exported.metadata
    channels, height, width = metadata.image_shape
    shape = (height, width, channels) if metadata.input == "uint8" else metadata.image_shape
    sides = ", ".join(map(str, shape))
    first = next(iter(exported.agreements.values()))
    console.print(
        f"agrees: the largest relative difference of a probability is {first.difference:.1e} "
        f"(allowed {first.allowed:.0e}), the most probable class is the same for all "
        f"{first.images:,} images"
    )
    _print_programs(exported, first, console)
    console.print(
        readable(
            f"written: {exported.file}: {metadata.input} [N, {sides}] to probabilities of "
            f"{len(metadata.classes)} classes"
        )
    )
    if metadata.preprocessing:
        names = ", ".join(name for entry in metadata.preprocessing for name in entry)
        console.print(f"preprocessing that your program must do: {names} (see {METADATA})")
    for name, agreement in exported.agreements.items():
        if agreement.points_lost > POINTS:
            warnings.warn(
                f"{name}: accuracy is {agreement.points_lost:.2f} points lower than the network's",
                stacklevel=2,
            )


def _print_programs(exported: Exported, first: Agreement, console: Console) -> None:
    """Accuracy, size and latency of the network here and of each program that runs the export."""
    rows = []
    for name, seconds in exported.seconds.items():
        agreement = exported.agreements.get(name)
        right = first.right if agreement is None else agreement.right_exported
        rows.append(
            (
                HERE if name == HERE else PROGRAMS[name],
                f"{right / first.images:.2%}",
                "" if name == HERE else f"{exported.sizes[name] / 1e6:.2f} MB",
                *(f"{1000 * seconds[size]:.1f} ms" for size in BATCHES),
            )
        )
    header = ("", "accuracy", "size", *(f"batch of {size}" for size in BATCHES))
    print_table(console, header, rows, numbers=range(1, len(header)))
