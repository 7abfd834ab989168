"""Conversion of Paddle's format to ONNX, by paddle2onnx in a child process.

paddle2onnx prints to standard output, and exits the process if it fails.
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
        metadata: a file with the text to store in the ONNX file under ``key``.

    Raises:
        RunFailed: paddle2onnx failed, for instance at an unknown operation.
    """
    try:
        call(__name__, program, weights, metadata, key, file)
    except RunFailed as error:
        raise RunFailed(
            f"paddle2onnx cannot convert this network ({error}); --format paddle may do"
        ) from None


def main(program: str, weights: str, metadata: str, key: str, file: str) -> None:
    """The child process."""
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
    # By default version 2, for Paddle 3, installs a package to optimise its result.
    if not paddle2onnx.__version__.startswith("1."):
        options["optimize_tool"] = "None"
    return paddle2onnx.export(program, weights, None, **options)


def _name(model: Any) -> None:
    """Rename the output, and give the batch dimension of input and output the same name."""
    graph = model.graph
    (output,) = graph.output
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [OUTPUT if name == output.name else name for name in names]
    output.name = OUTPUT
    for end in (graph.input[0], output):
        end.type.tensor_type.shape.dim[0].dim_param = BATCH
    del graph.value_info[:]  # it has other names for the batch dimension


def _leave_out_unused(graph: Any) -> None:
    """Remove unused constants, which onnxruntime would warn about in every program.

    A node with a subgraph, such as a loop, may use more than its inputs: then nothing is removed.
    """
    if any(attribute.HasField("g") for node in graph.node for attribute in node.attribute):
        return
    used, kept = {OUTPUT}, []
    for node in reversed(graph.node):
        if used.intersection(node.output):
            used.update(node.input)
            kept.append(node)
    initializers = [each for each in graph.initializer if each.name in used]
    for field, values in ((graph.node, kept[::-1]), (graph.initializer, initializers)):
        del field[:]
        field.extend(values)
