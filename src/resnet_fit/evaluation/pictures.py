"""Thumbnails of images, with saliency maps as heat maps."""

from __future__ import annotations

import base64
import dataclasses
import io
from dataclasses import dataclass

import cv2
import numpy as np
import paddle
from PIL import Image

from resnet_fit.data.dataset import Dataset
from resnet_fit.evaluation.saliency import saliency
from resnet_fit.runs.open import OpenedRun

# The longer side of a picture in pixels.
SIDE = 128
# The weight of the heat map's colours over the picture.
HEAT = 0.55
BATCH = 50


@dataclass(frozen=True)
class Pictures:
    """Pictures of some images of a data set, as the network sees them.

    Attributes:
        images: uint8 ``[N, H, W, 3]``, at most 128 px a side.
        heat: the same under a heat map of the evidence for the predicted class.
        method: the name of the saliency method.
    """

    images: np.ndarray
    heat: np.ndarray
    method: str


def take_pictures(run: OpenedRun, dataset: Dataset, classes: np.ndarray) -> Pictures | None:
    """Pictures of all images of a data set; None if it is empty.

    Args:
        classes: int64 ``[N]``, the class of each image whose evidence the heat map shows.
    """
    if not len(dataset):
        return None
    shown, maps, method = [], [], ""
    pairs = zip(unnormalised(run).loader(dataset, BATCH), run.loader(dataset, BATCH), strict=True)
    for i, ((seen, _), (images, _)) in enumerate(pairs):
        wanted = classes[i * BATCH : (i + 1) * BATCH]
        found, method = saliency(run.network, paddle.to_tensor(images), wanted)
        shown += [visible(image) for image in seen]
        maps += list(found)
    heat = [heated(image, m) for image, m in zip(shown, maps, strict=True)]
    return Pictures(np.stack(shown), np.stack(heat), method)


def unnormalised(run: OpenedRun) -> OpenedRun:
    """The run without ``normalize`` in its preprocessing, so that images stay pixel values."""
    kept = tuple(entry for entry in run.record.preprocessing if "normalize" not in entry)
    return dataclasses.replace(run, record=dataclasses.replace(run.record, preprocessing=kept))


def visible(image: np.ndarray) -> np.ndarray:
    """An image ``[C, H, W]`` as a picture: uint8 ``[h, w, 3]``.

    Values that are not uint8, from a user's own operation, are scaled to 0..255. Small images are
    enlarged by whole factors.
    """
    if image.dtype != np.uint8:
        low, high = float(image.min()), float(image.max())
        image = np.uint8(np.rint((image - low) * (255 / ((high - low) or 1.0))))
    picture = image[:3] if len(image) >= 3 else image[:1].repeat(3, axis=0)
    picture = np.ascontiguousarray(picture.transpose(1, 2, 0))
    height, width = picture.shape[:2]
    longer = max(height, width)
    if longer <= SIDE // 2:
        times = SIDE // longer
        return picture.repeat(times, axis=0).repeat(times, axis=1)
    if longer > SIDE:
        size = (max(1, width * SIDE // longer), max(1, height * SIDE // longer))
        return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return picture


def heated(picture: np.ndarray, evidence: np.ndarray) -> np.ndarray:
    """A picture blended with a heat map (dark violet to yellow) of evidence ``[H, W]``, 0 to 1."""
    height, width = picture.shape[:2]
    smooth = cv2.resize(evidence, (width, height), interpolation=cv2.INTER_LINEAR)
    levels = np.uint8(np.rint(smooth * 255))
    colours = cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)[..., ::-1]
    return np.uint8(np.rint((1 - HEAT) * picture + HEAT * colours))


def jpeg(picture: np.ndarray) -> str:
    """A picture as a data URL, ``data:image/jpeg;base64,...``."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=82)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
