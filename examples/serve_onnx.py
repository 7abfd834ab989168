"""Classify image files with an exported network: no Paddle, no resnet-fit.

    python examples/serve_onnx.py runs/NAME/export/model.onnx photo.jpg

It needs onnxruntime, numpy and Pillow. The names of the classes, and what is to be done to an image
before, stand in the file; its normalisation is part of the network (`resnet-fit export` with
`--input uint8`). For RGB or grey images that are resized and cropped, or taken as they are.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image


def main(file: str, *photos: str) -> None:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map["resnet_fit"])
    steps = {name: options for step in about["preprocessing"] for name, options in step.items()}
    for photo in photos:
        image = prepare(photo, steps).convert("L" if about["image_shape"][0] == 1 else "RGB")
        pixels = np.asarray(image).reshape(1, image.height, image.width, -1)
        (chances,) = session.run(None, {session.get_inputs()[0].name: pixels})[0]
        best = int(chances.argmax())
        print(f"{photo}: {about['classes'][best]} {chances[best]:.2%}")


def prepare(photo: str, steps: dict[str, dict[str, Any]]) -> Image.Image:
    """An image file after the steps that come before the network."""
    image: Image.Image = Image.open(photo)
    if "resize" in steps:  # the shorter side to so many pixels
        size, (width, height) = steps["resize"]["size"], image.size
        shorter, shrink = min(width, height), max(1, min(width, height) // size)
        image.draft(image.mode, (width // shrink, height // shrink))  # a JPEG is decoded smaller
        kernel = Image.Resampling[steps["resize"]["interpolation"].upper()]
        image = image.convert("RGB").resize(
            (size * width // shorter, size * height // shorter), kernel
        )
    if "center_crop" in steps:
        size = steps["center_crop"]["size"]
        left, top = (round((side - size) / 2) for side in image.size)
        image = image.crop((left, top, left + size, top + size))
    return image


if __name__ == "__main__":
    main(*sys.argv[1:])
