"""A network as a graph of layers and operations, in the form that VisualDL draws."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import warnings

import paddle
from paddle import nn

from resnet_fit.backends import use_backend
from resnet_fit.home import STATIC_GRAPH, home_with
from resnet_fit.runtime import import_visualdl

# What VisualDL's server takes for a graph's file.
GRAPH = "vdlgraph.run.log"


def describe_graph(network: nn.Layer, image_shape: tuple[int, int, int]) -> str:
    """The graph of a network in evaluation, by Paddle's own operations, as JSON text.

    The network itself is left as it is, with its hooks and names, and so are random states. Takes
    seconds: Paddle traces a copy and saves that.

    Args:
        image_shape: ``(C, H, W)``.

    Raises:
        Exception: of many kinds, where Paddle cannot trace the network.
    """
    import_visualdl()
    from visualdl.component.graph import translate_graph

    copied = copy.deepcopy(network)
    use_backend(copied, "paddle")
    copied.eval()
    images = paddle.static.InputSpec([None, *image_shape], "float32", "images")
    # VisualDL reads the format of programs that Paddle 2 writes; Paddle 3 has to be asked for it.
    pir = getattr(paddle, "pir_utils", None)
    old_format = getattr(pir, "DygraphOldIrGuard", contextlib.nullcontext)
    state = paddle.get_rng_state()
    try:
        with (
            home_with(*STATIC_GRAPH),
            old_format(),
            paddle.utils.unique_name.guard(),
            contextlib.redirect_stdout(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            text = translate_graph(copied, [images], verbose=False)
    finally:
        paddle.set_rng_state(state)
    return json.dumps(json.loads(text), separators=(",", ":"))
