"""Paddle's format turned into an ONNX file, by paddle2onnx in a process of its own.

That prints, and ends the process where it fails.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from resnet_fit.errors import RunFailed
from resnet_fit.export.children import call

OPSET = 17
BATCH, OUTPUT = "batch", "probabilities"


def convert(program: Path, weights: Path, metadata: Path, key: str, file: Path) -> None:
    """Write an ONNX file.

    Args:
        program, weights: the network in Paddle's format.
        metadata: a file with the text that the ONNX file is to have under ``key``.

    Raises:
        RunFailed: paddle2onnx failed, as for an operation that it does not know.
    """
    try:
        call(__name__, program, weights, metadata, key, file)
    except RunFailed as error:
        raise RunFailed(
            f"paddle2onnx cannot convert this network ({error}); --format paddle may do"
        ) from None


def main(program: str, weights: str, metadata: str, key: str, file: str) -> None:
    """What the child does."""
    import onnx

    model = onnx.load_from_string(_converted(program, weights))
    _name(model)
    _leave_out_unused(model.graph)
    onnx.helper.set_model_props(model, {key: Path(metadata).read_text(encoding="utf-8")})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, file)


def _converted(program: str, weights: str) -> bytes:
    from resnet_fit.runtime import prepare_environment

    prepare_environment()
    import paddle2onnx

    options: dict[str, Any] = {"opset_version": OPSET}
    # Version 2, for Paddle 3, by itself installs a package to optimise what it has made.
    if not paddle2onnx.__version__.startswith("1."):
        options["optimize_tool"] = "None"
    return paddle2onnx.export(program, weights, None, **options)


def _name(model: Any) -> None:
    """Names people understand for the output and for the batch, which is one size at both ends."""
    graph = model.graph
    (output,) = graph.output
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [OUTPUT if name == output.name else name for name in names]
    output.name = OUTPUT
    for end in (graph.input[0], output):
        end.type.tensor_type.shape.dim[0].dim_param = BATCH
    del graph.value_info[:]  # of other names for the batch


def _leave_out_unused(graph: Any) -> None:
    """Leave out constants that nothing takes, of which onnxruntime would warn each program.

    A node that has a graph of its own, as of a loop, may take more than it lists: then all stays.
    """
    if any(attribute.HasField("g") for node in graph.node for attribute in node.attribute):
        return
    used, kept = {OUTPUT}, []
    for node in reversed(graph.node):
        if used.intersection(node.output):
            used.update(node.input)
            kept.append(node)
    initializers = [each for each in graph.initializer if each.name in used]
    for all_of_them, those in ((graph.node, kept[::-1]), (graph.initializer, initializers)):
        del all_of_them[:]
        all_of_them.extend(those)
