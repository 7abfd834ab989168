"""Curves of several runs in one picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import islice, product
from pathlib import Path
from typing import Any, Literal

from resnet_fit.errors import UserError
from resnet_fit.files import write
from resnet_fit.runs.outcome import BEST, Outcome
from resnet_fit.training.metric_names import is_share

Axis = Literal["epochs", "minutes"]
AXES: tuple[Axis, ...] = ("epochs", "minutes")
# What is drawn where nothing else is asked for, as far as a run has it.
USUAL = ("train.loss", "eval.loss", "train.top1", "eval.top1")
# Ten colours, then the same ones dashed etc.
COLOURS = [f"C{i}" for i in range(10)]
STYLES = ["-", "--", ":", "-."]
NAMES_IN_A_COLUMN = 15  # of the legend, for each row of panels
# Minutes are drawn on a logarithmic axis where the longest run took more than this many times as
# long as the shortest, of which a linear axis would show nothing.
WIDE = 10
# A logarithmic axis has marks at 1, 2, 5, 10, 20, ... over at most so many powers of ten, and at
# 1, 10, 100, ... over more.
MOST_DECADES = 3


def draw(
    runs: Mapping[str, Outcome],
    file: Path,
    metrics: Sequence[str] = USUAL,
    against: Sequence[Axis] = AXES,
    title: str | None = None,
) -> None:
    """Write a picture with a panel for each metric, and a row of panels for each axis.

    Args:
        runs: by the label that the legend gives them. Those without a metric are left out of its
            panels.
        file: PNG, SVG or PDF by its ending.
        metrics: names such as ``eval.top1``; those that no run has are left out.

    Raises:
        UserError: no run has any of them.
    """
    known = {name for run in runs.values() for name in run.curves()}
    drawn = [name for name in dict.fromkeys(metrics) if name in known]
    if not drawn:
        raise UserError(f"{file}: nothing to draw: no run has finished an epoch")
    from matplotlib.figure import Figure

    from resnet_fit.fonts import for_any_name

    with for_any_name():
        size = (4.5 * len(drawn), 3.4 * len(against))
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(len(against), len(drawn), squeeze=False)
        if title is not None:
            figure.suptitle(_plain(title))
        for axis, line in zip(against, panels, strict=True):
            for name, panel in zip(drawn, line, strict=True):
                _draw_panel(panel, runs, name, axis)
        legend = figure.legend(
            panels[0][0].get_lines(),
            [_plain(label) for label in runs],
            loc="outside right upper",
            fontsize="small",
            ncols=math.ceil(len(runs) / (NAMES_IN_A_COLUMN * len(against))),
        )
        # The legend stands beside the panels, however many and long its names are.
        figure.set_figwidth(figure.get_figwidth() + legend.get_window_extent().width / figure.dpi)
        write(file, lambda part: figure.savefig(part, format=file.suffix[1:], dpi=110))


def worth_drawing(by: str | None) -> list[str]:
    """The usual metrics, and the one that runs are sorted by."""
    asked = (by or "").removeprefix(BEST)
    return [*USUAL, *([asked] if asked.startswith(("train.", "eval.")) else [])]


def points(run: Outcome, metric: str, axis: Axis) -> tuple[list[float], list[float]]:
    """A curve: where its points lie on the axis, and its values, accuracies in percent."""
    minutes = {row["epoch"]: row["seconds"] / 60 for row in run.rows}
    curve = run.curves().get(metric, [])
    across = [float(epoch) if axis == "epochs" else minutes[epoch] for _, epoch in curve]
    factor = 100 if is_share(metric) else 1
    return across, [factor * value for value, _ in curve]


def is_wide(ends: Sequence[float]) -> bool:
    """Whether curves that end there are drawn over a logarithmic axis; all ends are above zero."""
    return max(ends, default=0) > WIDE * min(ends, default=0)


def _draw_panel(panel: Any, runs: Mapping[str, Outcome], metric: str, axis: Axis) -> None:
    curves = [points(run, metric, axis) for run in runs.values()]
    for curve, look in zip(curves, _looks(len(runs)), strict=True):
        panel.plot(*curve, marker="o", markersize=3, **look)
    panel.set_xlabel(axis)
    if axis == "epochs":
        panel.xaxis.get_major_locator().set_params(integer=True)
    elif is_wide([across[-1] for across, _ in curves if across]):
        _make_logarithmic(panel)
    panel.set_ylabel(f"{metric} (%)" if is_share(metric) else metric)
    panel.grid(alpha=0.3)


def _make_logarithmic(panel: Any) -> None:
    """The axis from left to right, with marks that are plain numbers."""
    from matplotlib.ticker import LogLocator, NullFormatter

    panel.set_xscale("log")
    first, last = panel.get_xlim()
    marks = (1, 2, 5) if last <= first * 10**MOST_DECADES else (1,)
    panel.xaxis.set_major_locator(LogLocator(subs=marks))
    panel.xaxis.set_major_formatter("{x:g}")
    panel.xaxis.set_minor_formatter(NullFormatter())


def _plain(label: str) -> str:
    """A label that matplotlib takes for neither a formula nor one to be left out."""
    return label.replace("$", r"\$").replace("_", " _", label.startswith("_"))


def _looks(count: int) -> list[dict[str, Any]]:
    """A colour and a style for each run; they repeat after forty."""
    looks = [{"color": c, "linestyle": s} for s, c in product(STYLES, COLOURS)]
    return list(islice(looks * (count // len(looks) + 1), count))
