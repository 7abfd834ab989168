"""Images of a batch in one image, as the network sees them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

# Mean and standard deviation, of each channel or one for all, in units of 0..1.
Normalisation = tuple[Sequence[float], Sequence[float]]

# Pixels a side of a sheet: no more than MOST, and small images are enlarged up to LEAST.
LEAST, MOST = 256, 768
# Images in a row.
ROW = 8
# Grey level of the lines between images.
LINES = 128


def contact_sheet(images: Any, normalisation: Normalisation | None = None) -> np.ndarray | None:
    """The first images of a batch, side by side.

    Args:
        images: ``[N, C, H, W]``, numbers or a tensor; it is left as it is.
        normalisation: what the images were normalised by. Without it real numbers are stretched so
            that the batch's range is that of pixel values.

    Returns:
        uint8 ``[H', W', C]``; None for what is no batch of grey or colour images.
    """
    shape = tuple(images.shape)
    if len(shape) != 4 or shape[1] not in (1, 3) or 0 in shape:
        return None
    row = max(1, min(ROW, MOST // (max(shape[2:]) + 1), math.ceil(math.sqrt(shape[0]))))
    some = _grey_levels(np.asarray(images[: row * row]), normalisation)
    count, channels, height, width = some.shape
    rows = math.ceil(count / row)
    sheet = np.full((rows * row, channels, height + 1, width + 1), LINES, np.uint8)
    sheet[:count, :, :height, :width] = some
    sheet = sheet.reshape(rows, row, channels, height + 1, width + 1)
    sheet = sheet.transpose(0, 3, 1, 4, 2).reshape(rows * (height + 1), row * (width + 1), channels)
    factor = max(1, LEAST // max(sheet.shape[:2]))
    return sheet[:-1, :-1].repeat(factor, 0).repeat(factor, 1)


def _grey_levels(images: np.ndarray, normalisation: Normalisation | None) -> np.ndarray:
    """The inverse of `resnet_fit.data.augment.Normalize`, as uint8."""
    if images.dtype == np.uint8:
        return images
    values = np.nan_to_num(images.astype(np.float32), posinf=0, neginf=0)
    if normalisation is None:
        least, most = values.min(), values.max()
        values = (values - least) / ((most - least) or 1)
    else:
        mean, std = (np.reshape(v, (-1, 1, 1)).astype(np.float32) for v in normalisation)
        values = values * std + mean
    return (values * 255 + 0.5).clip(0, 255).astype(np.uint8)
