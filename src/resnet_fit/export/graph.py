"""The exported graph, from images to probabilities, in Paddle's own operations."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import paddle
import paddle.nn.functional as F
from paddle import Tensor, nn

from resnet_fit.backends import choose_backend, use_backend
from resnet_fit.data.record import Shape
from resnet_fit.errors import RunFailed, first_line
from resnet_fit.export.normalisation import normalisation
from resnet_fit.export.request import Input
from resnet_fit.files import readable
from resnet_fit.home import STATIC_GRAPH, home_with
from resnet_fit.runs.open import OpenedRun
from resnet_fit.terminal import no_standard_error

IMAGES = "images"


class Graph(nn.Layer):
    """Images to probabilities ``[N, classes]``, float32.

    Args:
        network: from normalised images ``[N, C, H, W]`` to logits.
        scale, shift: normalise pixel values 0 to 255, uint8 ``[N, H, W, C]``; each
            ``[C or 1, 1, 1]``. Without them the input is that of the network.
        each_class: whether probabilities are a sigmoid for each class instead of a softmax over
            all.
    """

    def __init__(
        self,
        network: nn.Layer,
        scale: Tensor | None = None,
        shift: Tensor | None = None,
        each_class: bool = False,
    ) -> None:
        super().__init__()
        self.network = network
        self.normalizes = scale is not None
        self.takes: Input = "uint8" if self.normalizes else "float32"
        self.each_class = each_class
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, images: Tensor) -> Tensor:
        if self.normalizes:  # the same order of operations as `Normalize`, for equal results
            images = images.astype("float32").transpose([0, 3, 1, 2]) * self.scale - self.shift
        logits = self.network(images).astype("float32")
        return F.sigmoid(logits) if self.each_class else F.softmax(logits, axis=-1)


def graph_of(run: OpenedRun, input: Input) -> Graph:
    """The graph of a run's network, with its normalisation if ``input`` is ``uint8``."""
    scale = shift = None
    if input == "uint8":
        _, normalize = normalisation(run)
        numbers = normalize.scale_and_shift(run.record.image_shape[0])
        scale, shift = (paddle.to_tensor(each) for each in numbers)
    graph = Graph(run.network, scale, shift, run.judges_each_class)
    graph.eval()
    return graph


def save(graph: Graph, image_shape: Shape, stem: Path) -> tuple[Path, Path]:
    """Write a graph in Paddle's format, for batches of any size.

    Args:
        image_shape: ``(C, H, W)`` of the network's input.
        stem: the path of the files without extension.

    Returns:
        the program file, ``.json`` or before Paddle 3 ``.pdmodel``, and the weights file,
        ``.pdiparams``.

    Raises:
        RunFailed: Paddle cannot convert the network to a static graph.
    """
    channels, height, width = image_shape
    shape = [height, width, channels] if graph.normalizes else [channels, height, width]
    spec = paddle.static.InputSpec([None, *shape], graph.takes, IMAGES)
    use_backend(graph.network, "paddle")  # operations of the onednn backend cannot be exported
    try:
        with (
            home_with(*STATIC_GRAPH),
            _forwards_kept(graph),
            no_standard_error(),  # C++ code has a line for developers at every softmax
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            paddle.jit.save(graph, str(stem), input_spec=[spec])
    except OSError:
        raise
    except Exception as error:  # a user's own network may raise any exception
        raise RunFailed(readable(f"Paddle cannot save the network: {first_line(error)}")) from error
    finally:
        use_backend(graph.network, choose_backend("auto", "cpu", network=graph.network))
    program, weights = stem.with_suffix(".json"), stem.with_suffix(".pdiparams")
    return program if program.exists() else stem.with_suffix(".pdmodel"), weights


@contextmanager
def _forwards_kept(network: nn.Layer) -> Iterator[None]:
    """Restore the ``forward`` methods that Paddle 2.6 replaces when it makes a static graph."""
    layers = network.sublayers(include_self=True)
    before = [vars(layer).get("forward") for layer in layers]
    try:
        yield
    finally:
        for layer, forward in zip(layers, before, strict=True):
            if forward is not None:
                layer.forward = forward
            elif "forward" in vars(layer):
                del layer.forward
