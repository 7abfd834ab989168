"""An ONNX file such as an export writes, made by hand."""

from __future__ import annotations

import json

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CLASSES = ("cat", "dog", "fox")
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
GEOMETRY = [
    {"resize": {"size": 10, "interpolation": "bilinear"}},
    {"center_crop": {"size": 8}},
]
NORMALIZE = {"normalize": {"mean": list(MEAN), "std": list(STD)}}
SHAPE = (3, 8, 8)


def weights(shape=SHAPE):
    rng = np.random.default_rng(0)
    return rng.normal(0, 0.1, (int(np.prod(shape)), len(CLASSES))).astype(np.float32)


def graph_of(given, shape=SHAPE, batch="batch", outputs=3):
    """Flatten, one matrix, softmax; of uint8 the graph itself makes normalised numbers."""
    channels, height, width = shape
    sizes = [batch, height, width, channels] if given == "uint8" else [batch, *shape]
    constants = {"matrix": weights(shape)[:, :outputs]}
    nodes, top = [], "image"
    if given == "uint8":
        mean, std = (np.float32(v[:channels]) * np.float32(255) for v in (MEAN, STD))
        constants |= {"mean": mean, "std": std}
        nodes = [
            helper.make_node("Cast", ["image"], ["cast"], to=TensorProto.FLOAT),
            helper.make_node("Sub", ["cast", "mean"], ["centred"]),
            helper.make_node("Div", ["centred", "std"], ["scaled"]),
            helper.make_node("Transpose", ["scaled"], ["planes"], perm=[0, 3, 1, 2]),
        ]
        top = "planes"
    nodes += [
        helper.make_node("Flatten", [top], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    kind = TensorProto.UINT8 if given == "uint8" else TensorProto.FLOAT
    return helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", kind, sizes)],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [batch, outputs])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )


def write(file, given="uint8", batch="batch", outputs=3, **changes):
    metadata = {
        "format": 1,
        "classes": list(CLASSES),
        "input": given,
        "image_shape": list(SHAPE),
        "stored_shape": None,
        "preprocessing": GEOMETRY if given == "uint8" else [*GEOMETRY, NORMALIZE],
        "output": "probabilities",
        "run": "runs/x",
        "checkpoint": "best",
        "resnet_fit": "0.1.0",
        "paddle": "3.3.1",
    } | changes
    graph = graph_of(given, tuple(metadata["image_shape"]), batch, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"resnet_fit": json.dumps(metadata)})
    onnx.save(model, file)
    return file
