"""The report of an evaluation: ``report.html``, one file without external references."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from resnet_fit.evaluation.charts import MOST_DRAWN, confusion_picture, reliability_chart
from resnet_fit.evaluation.evaluation import SHOWN_SUSPECTS, Evaluation
from resnet_fit.evaluation.figures import confusion_matrix, macro_means, worst_classes
from resnet_fit.evaluation.pictures import Pictures, jpeg
from resnet_fit.evaluation.tables import image_row, suspect_rows
from resnet_fit.files import readable

TEMPLATE = "report.html.j2"
# Up to this many classes the confusion matrix is a table, up to `MOST_DRAWN` a picture.
MOST_CELLS = 120
# Up to this many classes the page shows all of them; of more classes, the worst ones first.
FEW_CLASSES, SHOWN_WORST = 30, 20
SHOWN_CONFUSIONS = 20
# Shades of a cell.
SHADES = 10


def render_report(evaluation: Evaluation) -> str:
    """The page as HTML text."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters |= {"percent": percent, "number": number}
    return environment.get_template(TEMPLATE).render(_content(evaluation))


def _content(evaluation: Evaluation) -> dict[str, Any]:
    found, classes = evaluation.predictions, evaluation.classes
    count = len(classes)
    return {
        "source": evaluation.source,
        "figures": evaluation.figures,
        "images": len(found),
        "mistakes": int(found.wrong.sum()),
        "macro": macro_means(classes),
        "classes": classes,
        "without_images": sum(not c.images for c in classes),
        "worst": None if count <= FEW_CLASSES else worst_classes(classes, SHOWN_WORST),
        "matrix": _cells(evaluation) if count <= MOST_CELLS else None,
        "matrix_picture": _matrix_picture(evaluation) if MOST_CELLS < count <= MOST_DRAWN else None,
        "confusions": evaluation.confusions[:SHOWN_CONFUSIONS],
        "calibration": evaluation.calibration,
        "chart": Markup(reliability_chart(evaluation.calibration.bins)),
        "wrong_cards": _cards(
            [image_row(evaluation, i) for i in evaluation.mistakes.tolist()],
            evaluation.mistake_pictures,
        ),
        "suspects": len(evaluation.suspects),
        "suspect_cards": _cards(
            suspect_rows(evaluation, SHOWN_SUSPECTS), evaluation.suspect_pictures
        ),
        "method": evaluation.mistake_pictures and evaluation.mistake_pictures.method,
        "speed": evaluation.speed,
        "seconds": found.seconds,
        "mirrored": found.mirrored is not None,
        "features": None if found.features is None else found.features.shape[1],
    }


def _cells(evaluation: Evaluation) -> list[list[tuple[int, str]]]:
    """The count and the CSS class of each cell of the matrix."""
    matrix = confusion_matrix(evaluation.predictions)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    shades = np.ceil(shares * SHADES).astype(int)
    return [
        [
            (int(n), f"{'d' if row == column else 'o'}{shades[row, column]}" if n else "")
            for column, n in enumerate(values)
        ]
        for row, values in enumerate(matrix)
    ]


def _matrix_picture(evaluation: Evaluation) -> str:
    found = evaluation.predictions
    picture = confusion_picture(confusion_matrix(found), found.classes)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _cards(rows: list[dict[str, Any]], pictures: Pictures | None) -> list[dict[str, Any]]:
    """Names, probabilities and pictures of each image."""
    if pictures is None:
        return []
    return [
        row | {"short": _short(row["image"]), "picture": jpeg(image), "heat": jpeg(heat)}
        for row, image, heat in zip(rows, pictures.images, pictures.heat, strict=True)
    ]


def _short(name: str) -> str:
    """The file name without its folder, which is the label; or the image's index."""
    return f"image {name}" if name.isdigit() else Path(name).name


def _shown(value: Any) -> Any:
    """Escape text for the page: file names may have bytes that are not UTF-8."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return readable(value)


def percent(share: float | None, digits: int = 2) -> str:
    """``97.78 %``, or a dash where there is no value."""
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def number(value: float | None, digits: int = 4) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"
