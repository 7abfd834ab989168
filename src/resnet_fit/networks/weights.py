"""Weights from files: ours, paddle.vision's and torchvision's, checked against the network."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import paddle
from paddle import nn

from resnet_fit.errors import UserError, few
from resnet_fit.files import require_existing
from resnet_fit.networks.found_weights import find_weights
from resnet_fit.networks.layer_names import find_head
from resnet_fit.networks.pickled_weights import read_pickle, read_torch_zip
from resnet_fit.networks.safetensors import is_safetensors, read_safetensors

# Prefixes of torch's DataParallel and of its compiler.
WRAPPERS = ("module.", "_orig_mod.")


@dataclass(frozen=True)
class LoadReport:
    """What :func:`load_weights` did: the file, the number of tensors taken from it, and the
    number of classes in the file where it differs from the network's (then the last layer was left
    as it was), else None."""

    file: str
    tensors: int
    other_classes: int | None


def load_weights(network: nn.Layer, file: str | os.PathLike[str]) -> LoadReport:
    """Copy the weights in ``file`` into ``network``.

    The format is recognised by content, not name: a ``.safetensors`` file, a state dict that
    Paddle saved (``.pdparams``) or one that torch saved (``.pth``), alone or in a dictionary as
    ``model``, ``state_dict`` or the like. The folder of a checkpoint or of a run is taken for the
    file in it, see `find_weights`. Nothing in a file is executed.
    torch's names and layouts are converted. If only the number of classes differs, the last layer
    stays as it is (in a new network: at its random start) and a warning says so.

    Raises:
        UserError: no such file, not a file of these, damaged, tensors that do not fit, or a static
            graph that is not prepared yet.
    """
    file = find_weights(file)
    tensors = read_weights(file)
    expected = _shapes(network)
    head = find_head(network)
    other_classes = _other_classes(tensors, expected, head)
    if other_classes is not None:
        for name in (f"{head}.weight", f"{head}.bias"):
            tensors.pop(name, None)
            expected.pop(name, None)
    _copy_checked(network, tensors, expected, file)
    if other_classes is not None:
        warnings.warn(
            f"{os.fspath(file)} was made for {other_classes} classes: "
            "its last layer is not loaded.",
            stacklevel=2,
        )
    return LoadReport(os.fspath(file), len(tensors), other_classes)


def set_weights(
    network: nn.Layer, tensors: Mapping[str, np.ndarray], file: str | os.PathLike[str]
) -> None:
    """Copy ``tensors``, read from ``file``, into ``network``, which must have just these.

    Raises:
        UserError: they are those of another network.
    """
    _copy_checked(network, tensors, _shapes(network), file)


def read_weights(file: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read a weights file; see :func:`load_weights`. Names and layouts are Paddle's.

    Raises:
        UserError: no such file, not a file of these, or damaged.
    """
    return from_torch(_without_wrappers(read_tensors(find_weights(file))))


def read_tensors(file: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read a weights file, with names and layouts as they stand in it.

    Raises:
        UserError: no such file, not a file of these, or damaged.
    """
    path = Path(file)
    require_existing(path)
    if not path.is_file():
        raise UserError(f"{path} is not a file.")
    try:
        return _read(path)
    except UserError as error:
        raise UserError(f"{path} {error}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from None
    # A damaged pickle or archive can make its reader raise anything.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path} is damaged or cut short ({type(error).__name__}: {reason})."
        ) from error


def from_torch(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Convert torch's state dicts, which are recognised by ``running_mean``.

    Paddle keeps the weight of a linear layer as ``[features, outputs]``, torch the other way
    round, and Paddle does not count batches. A DenseNet of torchvision gets paddle.vision's names.
    Other state dicts are returned as they are.
    """
    if not any(name.endswith(".running_mean") for name in tensors):
        return dict(tensors)
    if any(name.startswith("features.denseblock") for name in tensors):
        tensors = {_densenet_name(name): tensor for name, tensor in tensors.items()}
    return {
        name.replace(".running_mean", "._mean").replace(".running_var", "._variance"): (
            tensor.T if tensor.ndim == 2 else tensor
        )
        for name, tensor in tensors.items()
        if not name.endswith(".num_batches_tracked")
    }


def _without_wrappers(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors without the prefixes that torch's wrappers give to all names."""
    tensors.pop("n_averaged", None)  # torch's AveragedModel counts in it
    for prefix in WRAPPERS * 2:  # one may be within the other
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def _densenet_name(name: str) -> str:
    """A name of torchvision's DenseNet as paddle.vision has it, which counts stages from 2.

    torchvision's files are older than its code: ``norm.1`` in them is ``norm1`` in it.
    """
    kinds = {"norm": "_batch_norm", "conv": "_conv"}
    layer = r"features\.denseblock(\d+)\.denselayer(\d+)\.(norm|conv)\.?([12])\.(\w+)"
    if found := re.fullmatch(layer, name):
        block, index, kind, half, tensor = found.groups()
        stage = int(block) + 1
        return f"db_conv_{stage}.conv{stage}_{index}.bn_ac_func{half}.{kinds[kind]}.{tensor}"
    if found := re.fullmatch(r"features\.transition(\d+)\.(norm|conv)\.(\w+)", name):
        block, kind, tensor = found.groups()
        return f"tr_conv{int(block) + 1}_blk.conv_ac_func.{kinds[kind]}.{tensor}"
    if found := re.fullmatch(r"features\.(norm|conv)0\.(\w+)", name):
        kind, tensor = found.groups()
        return f"conv1_func.{kinds[kind]}.{tensor}"
    return re.sub(r"^features\.norm\d+\.", "batch_norm.", name).replace("classifier.", "out.")


def _read(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb") as stream:
        start = stream.read(9)
    if not start:
        raise UserError("is empty.")
    if start.startswith(b"PK\x03\x04"):
        return read_torch_zip(path)
    if is_safetensors(path):
        return read_safetensors(path)
    if start.startswith(b"\x80"):
        return read_pickle(path)
    if start.endswith(b"{"):
        raise UserError("is cut short.")
    raise UserError("is no weights file: expected .safetensors, .pdparams or .pth.")


def _other_classes(
    tensors: Mapping[str, np.ndarray], expected: Mapping[str, tuple[int, ...]], head: str | None
) -> int | None:
    """The classes in the file, if they differ from the network's and the rest of ``head`` fits."""
    weight, bias = tensors.get(f"{head}.weight"), tensors.get(f"{head}.bias")
    wanted = expected.get(f"{head}.weight", ())
    if weight is None or weight.ndim != 2 or len(wanted) != 2:
        return None
    features, classes = weight.shape
    has_bias = f"{head}.bias" in expected
    right_bias = bias.shape == (classes,) and has_bias if bias is not None else not has_bias
    return classes if right_bias and features == wanted[0] and classes != wanted[1] else None


def _check_fit(
    file: str | os.PathLike[str],
    tensors: Mapping[str, np.ndarray],
    expected: Mapping[str, tuple[int, ...]],
) -> None:
    both = [name for name in expected if name in tensors]
    problems = {
        "missing": [name for name in expected if name not in tensors],
        "unexpected": [name for name in tensors if name not in expected],
        "of another shape": [
            f"{name} {_shape(tensors[name].shape)} for {_shape(expected[name])}"
            for name in both
            if tensors[name].shape != expected[name]
        ],
        "not of floating point": [
            f"{name} {tensors[name].dtype}" for name in both if tensors[name].dtype.kind != "f"
        ],
    }
    found = [f"{len(names)} {what} ({few(names)})" for what, names in problems.items() if names]
    if found:
        raise UserError(f"{os.fspath(file)} does not fit this network: {'; '.join(found)}.")


def _shapes(network: nn.Layer) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


def _copy_checked(
    network: nn.Layer,
    tensors: Mapping[str, np.ndarray],
    expected: Mapping[str, tuple[int, ...]],
    file: str | os.PathLike[str],
) -> None:
    """Copy tensors into a network once all of the ``expected`` are there and fit."""
    _check_initialized(network)
    _check_fit(file, tensors, expected)
    _set_state(network, tensors)


def _check_initialized(network: nn.Layer) -> None:
    """Raise UserError for an unprepared static graph: `prepare` would overwrite loaded weights."""
    if paddle.in_dynamic_mode():
        return
    scope = paddle.static.global_scope()
    variables = [scope.find_var(value.name) for value in network.state_dict().values()]
    if not all(variable and variable.get_tensor()._is_initialized() for variable in variables):
        raise UserError(
            "In a static graph weights are loaded after paddle.Model.prepare (or the startup "
            "program): build the network without weights, prepare it, then call load_weights."
        )


def _set_state(network: nn.Layer, tensors: Mapping[str, np.ndarray]) -> None:
    parameters = network.state_dict()
    state = {
        name: tensor.astype(str(parameters[name].dtype).rpartition(".")[2].lower())
        for name, tensor in tensors.items()
    }
    with warnings.catch_warnings():
        # Paddle warns of every tensor that is left out; here the last layer's, told in one line.
        warnings.filterwarnings("ignore", message="Skip loading")
        network.set_state_dict(state)


def _shape(shape: Iterable[int]) -> str:
    return "x".join(str(n) for n in shape)
