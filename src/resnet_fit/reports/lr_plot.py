"""What a learning-rate range test found: a sketch and a suggestion in text, and a plot."""

from __future__ import annotations

import math
from pathlib import Path

from rich.console import Console

from resnet_fit.errors import RunFailed
from resnet_fit.files import write
from resnet_fit.reports.lr_range import RangeTest
from resnet_fit.reports.table import print_table
from resnet_fit.runs.config import Config

# Lines of the sketch, and the length of its longest bar.
LINES, BAR = 20, 40


def show(found: RangeTest, config: Config, console: Console) -> None:
    """Print the losses and what they suggest.

    Raises:
        RunFailed: they suggest nothing; the message says why.
    """
    _sketch(found, console)
    if found.ended is not None:
        console.print(f"ended after {len(found.losses)} steps: {found.ended}")
    if found.problem is not None:
        raise RunFailed(found.problem)
    optimizer = config.optimizer
    console.print(
        f"suggested: {found.suggestion:g}, where the smoothed loss was least: "
        f"{found.smoothed[found.lowest]:.3f}, from {found.smoothed[0]:.3f}"
    )
    settings = optimizer.at_rate(found.suggestion)
    words = " ".join(f"--set optimizer.{name}={value:.2g}" for name, value in settings.items())
    console.print(f"to train at it: {words}")
    if optimizer.reference_batch_size is not None:
        images = config.data.batch_size * config.training.accumulate
        used = found.suggestion * images / optimizer.reference_batch_size
        console.print(
            f"with optimizer.reference_batch_size {optimizer.reference_batch_size}, a step of "
            f"{images} images uses {used:.2g}"
        )


def _sketch(found: RangeTest, console: Console) -> None:
    """The smoothed losses as bars, at some of the rates."""
    count = len(found.losses)
    shown = sorted({round(i * (count - 1) / (LINES - 1)) for i in range(LINES)} | {found.lowest})
    ceiling = max(1.2 * found.smoothed[0], 1e-9)
    width = max(5, min(BAR, console.width - 24)) if console.is_terminal else BAR
    rows = []
    for step in shown:
        loss = found.smoothed[step]
        share = min(1.0, loss / ceiling) if math.isfinite(loss) else 1.0
        bar = "#" * round(share * width) + (" least" if step == found.lowest else "")
        rows.append((f"{found.rates[step]:.1e}", f"{loss:.3f}", bar))
    print_table(console, ("rate", "loss", ""), rows, numbers=(0, 1))


def plot(found: RangeTest, file: Path) -> None:
    """Draw losses over rates; the file is written whole or not at all."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5))
    axes = figure.add_subplot()
    axes.plot(found.rates, found.losses, color="0.75", linewidth=1, label="loss of each step")
    axes.plot(found.rates, found.smoothed, label="smoothed")
    if found.problem is None:
        axes.axvline(
            found.suggestion, color="C1", linestyle="--", label=f"suggested: {found.suggestion:g}"
        )
    axes.set_xscale("log")
    top = 1.5 * found.smoothed[0]
    axes.set_ylim(0.9 * min(found.smoothed[: found.lowest + 1]), top)
    axes.set_xlabel("optimizer.learning_rate")
    axes.set_ylabel("loss")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    write(file, lambda part: figure.savefig(part, format=file.suffix[1:], dpi=120))
