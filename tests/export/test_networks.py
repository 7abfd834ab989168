"""Exported networks of every kind say on photographs what the networks themselves say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import paddle
import pytest
from sklearn.datasets import load_sample_images

from resnet_fit import densenet, resnet
from resnet_fit.backends import choose_backend, use_backend
from resnet_fit.export import onnx_file
from resnet_fit.export.agreement import compare
from resnet_fit.export.graph import Graph, save
from resnet_fit.export.running import open_files

CLASSES, PIXELS = 5, 40
MEAN, STD = np.array([0.4, 0.5, 0.6]), np.array([0.2, 0.25, 0.3])


class Own(paddle.nn.Layer):
    """A network that has no part of this library."""

    def __init__(self) -> None:
        super().__init__()
        self.features = paddle.nn.Sequential(
            paddle.nn.Conv2D(3, 8, 3, 2), paddle.nn.BatchNorm2D(8), paddle.nn.Hardswish()
        )
        self.head = paddle.nn.Linear(8, CLASSES)

    def forward(self, images):
        return self.head(self.features(images).max(axis=[2, 3]))


def small(depth: Any = (1, 1), **options: Any) -> Any:
    return lambda: resnet(list(depth), CLASSES, **{"width": 8, **options})


NETWORKS = {
    "basic, imagenet": small((2, 1), stem="imagenet"),
    "basic, cifar3, zero-pad": small(stem="cifar3", shortcut="zero-pad"),
    "zero-pad without new channels": small(stem="cifar", shortcut="zero-pad", width=[8, 8]),
    "plain": small(stem="cifar", shortcut="none"),
    "bottleneck, cifar": small(stem="cifar", block="bottleneck"),
    "bottleneck, 1x1, zero-pad, stochastic depth": small(
        stem="cifar", block="bottleneck", shortcut="zero-pad", stride_on="1x1", stochastic_depth=0.2
    ),
    "resnext": small(stem="imagenet", block="bottleneck", groups=2, width_per_group=32),
    "shaped": small(
        stem="cifar",
        shortcut="average",
        stride_on="pool",
        width=[8, 6],
        strides=[2, 2],
        stem_width=4,
    ),
    "bottleneck, pool": small(stem="cifar", block="bottleneck", stride_on="pool"),
    "wide": small(stem="cifar", block="bottleneck", width_per_group=128),
    "dense, imagenet": lambda: densenet([2, 1], CLASSES, "imagenet", growth=6),
    "dense, cifar": lambda: densenet([2, 2], CLASSES, "cifar", growth=6),
    "own": Own,
}


def drawn(make: Any) -> paddle.nn.Layer:
    """A network with random weights and random running statistics."""
    paddle.seed(0)
    rng = np.random.default_rng(0)
    network = make()
    for name, tensor in network.state_dict().items():
        if name.endswith("_mean"):
            tensor.set_value(rng.normal(0, 0.2, tensor.shape).astype("float32"))
        elif name.endswith("_variance"):
            tensor.set_value(rng.uniform(0.5, 2, tensor.shape).astype("float32"))
    network.eval()
    return network


@pytest.fixture(scope="module")
def photographs() -> np.ndarray:
    """Seven tiles, uint8 ``[7, 40, 40, 3]``."""
    (photo, _) = load_sample_images().images
    return np.stack([photo[40 * i : 40 * i + 40, 80 * i : 80 * i + 40] for i in range(7)])


def logits_of(network: paddle.nn.Layer, photographs: np.ndarray) -> np.ndarray:
    """By numpy's normalisation and Paddle's operations."""
    images = ((photographs / 255 - MEAN) / STD).transpose(0, 3, 1, 2).astype("float32")
    use_backend(network, "paddle")
    with paddle.no_grad():
        return network(paddle.to_tensor(images)).numpy()


def graph_of(network: paddle.nn.Layer, each_class: bool = False) -> Graph:
    numbers = (1 / (255 * STD), MEAN / STD)
    scale, shift = (paddle.to_tensor(n[:, None, None].astype("float32")) for n in numbers)
    graph = Graph(network, scale, shift, each_class)
    graph.eval()
    return graph


def to_onnx(program: Path, weights: Path) -> Path:
    text, file = (program.with_name(name) for name in ("text", "model.onnx"))
    text.write_text('{"a": "ä"}', "utf-8")
    onnx_file.main(str(program), str(weights), str(text), "key", str(file))
    return file


@pytest.mark.filterwarnings("ignore:stem='imagenet'")
@pytest.mark.parametrize("name", NETWORKS)
def test_files_of_both_formats_say_what_the_network_says(name, photographs, tmp_path):
    network = drawn(NETWORKS[name])
    each_class = name == "plain"
    in_paddle = save(graph_of(network, each_class), (3, PIXELS, PIXELS), tmp_path / "model")
    logits = logits_of(network, photographs)
    for files in ((to_onnx(*in_paddle),), in_paddle):
        run = open_files(1, *map(str, files))
        for count in (7, 1):
            found = run(photographs[:count])
            best = logits[:count].argmax(axis=1)
            agreement = compare(logits[:count], found, best, each_class)
            assert agreement.difference < 1e-4
            assert agreement.same == agreement.right_exported == count
            assert each_class or np.allclose(found.sum(axis=1), 1)


def test_an_onnx_file_tells_its_shapes_and_what_is_written_into_it(tmp_path):
    graph = graph_of(drawn(NETWORKS["plain"]))
    file = to_onnx(*save(graph, (3, PIXELS, PIXELS), tmp_path / "model"))
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (images,), (output,) = session.get_inputs(), session.get_outputs()
    assert (images.name, images.type) == ("images", "tensor(uint8)")
    assert images.shape == ["batch", PIXELS, PIXELS, 3]
    assert (output.name, output.shape) == ("probabilities", ["batch", CLASSES])
    assert session.get_modelmeta().custom_metadata_map == {"key": '{"a": "ä"}'}


def test_a_network_computes_as_before_once_it_is_saved(photographs, tmp_path):
    network = drawn(NETWORKS["basic, cifar3, zero-pad"])
    images = paddle.to_tensor(photographs.transpose(0, 3, 1, 2).astype("float32"))
    backend = choose_backend("auto", "cpu", network=network)
    use_backend(network, backend)
    before = network(images).numpy()
    save(Graph(network), (3, PIXELS, PIXELS), tmp_path / "model")
    assert network.backend.name == backend
    assert np.array_equal(network(images).numpy(), before)
