"""Charts: the reliability diagram as SVG, large confusion matrices as pixels."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from resnet_fit.evaluation.calibration import Bin
from resnet_fit.fonts import can_be_drawn, for_any_name

# Placeholder colours, replaced by CSS variables of the page, which differ in light and dark mode.
PAGE_COLOURS = {
    "#010101": "var(--text)",
    "#020202": "var(--muted)",
    "#030303": "var(--line)",
    "#040404": "var(--accent)",
    "#050505": "var(--warn)",
}
TEXT, MUTED, LINE, ACCENT, WARN = PAGE_COLOURS
# Up to this many classes a matrix has their names at its sides.
NAMED = 40
# Up to this many classes a matrix is drawn; the cells of a larger one are too small to see.
MOST_DRAWN = 2000


def reliability_chart(bins: list[Bin]) -> str:
    """Accuracy by confidence, and below it how many images have that confidence, as SVG."""
    there = [b for b in bins if b.images]
    width = bins[0].high - bins[0].low
    centres = [(b.low + b.high) / 2 for b in there]
    accuracy = np.array([b.accuracy for b in there], float)
    confidence = np.array([b.confidence for b in there], float)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "reliability", "font.size": 10}):
        figure = Figure(figsize=(4.6, 4.8), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        upper.bar(centres, accuracy, width * 0.92, color=ACCENT, alpha=0.85)
        gap = confidence - accuracy
        upper.bar(centres, gap, width * 0.92, bottom=accuracy, color=WARN, alpha=0.35, hatch="////")
        upper.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle="--")
        upper.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
        lower.bar(centres, [b.images for b in there], width * 0.92, color=ACCENT, alpha=0.85)
        lower.set(xlabel="confidence", ylabel="images")
        for axes in (upper, lower):
            _style(axes)
        return _svg(figure)


@for_any_name()
def confusion_picture(matrix: np.ndarray, classes: tuple[str, ...]) -> np.ndarray:
    """A confusion matrix as a picture, normalised by row: uint8 ``[H, W, 3]``."""
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    count = len(classes)
    side = min(10.0, max(4.5, 0.3 * count + 2))
    figure = Figure(figsize=(side, side * 0.9), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    # By default matplotlib averages cells where they are smaller than a pixel.
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="prediction", ylabel="label")
    if count <= NAMED:
        # Without a font for a name its class is told by number.
        names = [n if can_be_drawn(n) else f"class {i}" for i, n in enumerate(classes)]
        names = [name if len(name) <= 18 else f"{name[:17]}…" for name in names]
        names = [name.replace("$", r"\$") for name in names]  # else matplotlib sets it as a formula
        axes.set_xticks(range(count), names, rotation=90)
        axes.set_yticks(range(count), names)
    figure.colorbar(image, ax=axes, fraction=0.046, label="share of the label's images")
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _style(axes: Any) -> None:
    axes.set_facecolor("none")
    axes.tick_params(colors=MUTED)
    axes.grid(color=LINE, linewidth=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(LINE)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(TEXT)


def _svg(figure: Figure) -> str:
    """The ``<svg>`` element alone, in the page's colours."""
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    start, end = text.index("<metadata>"), text.index("</metadata>")
    text = text[text.index("<svg") : start] + text[end + len("</metadata>") :]
    for colour, variable in PAGE_COLOURS.items():
        text = text.replace(colour, variable)
    return text
