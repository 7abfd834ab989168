"""Whatever network of this library is drawn, every backend computes what Paddle does in float64."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from paddle import nn

from resnet_fit.backends import onednn_problem, plain, use_backend
from resnet_fit.networks import Layers, densenet, resnet

BACKENDS = ["paddle", "channels_last"] + ([] if onednn_problem() else ["onednn"])
SLOW = [HealthCheck.too_slow]
Results = dict[str, np.ndarray]


def convolution(**options: Any) -> Any:
    """A kind of convolution for `Layers`."""

    def conv(i: int, o: int, kernel: int, stride: int = 1) -> nn.Layer:
        given = {"bias_attr": False, "padding": kernel // 2} | options
        return nn.Conv2D(i, o, kernel, stride, **given)

    return conv


# Kinds of layer, the first of them in most networks. Those behind it are what users put in.
KINDS = {
    "usual": Layers(),
    "bias": replace(Layers(), conv=convolution(bias_attr=None)),
    "replicated edges": replace(Layers(), conv=convolution(padding_mode="replicate")),
    "same": replace(Layers(), conv=convolution(padding="SAME")),
    "group norm": replace(Layers(), norm=lambda channels, weight=1.0: nn.GroupNorm(1, channels)),
    "no scale": replace(
        Layers(),
        norm=lambda channels, weight=1.0: nn.BatchNorm2D(
            channels, weight_attr=False, bias_attr=False
        ),
    ),
}
CHANNELS = st.integers(1, 9) | st.sampled_from([12, 16, 17])
STAGES = st.lists(st.integers(1, 2), min_size=1, max_size=3)
SIDES = st.integers(1, 9) | st.integers(1, 40)


@st.composite
def networks(draw: st.DrawFn) -> dict[str, Any]:
    """Arguments of a network and its images."""
    stem = draw(st.sampled_from(["cifar", "imagenet", "cifar3"]))
    options: dict[str, Any] = {"depth": draw(STAGES), "stem": stem}
    options |= {"num_classes": draw(st.integers(1, 5)), "in_channels": draw(st.integers(1, 4))}
    kind = draw(st.sampled_from(["usual"] * 6 + list(KINDS)))
    smallest = 1
    dense = stem != "cifar3" and draw(st.booleans())
    if dense:
        options["growth"] = draw(CHANNELS)
        smallest = 2 ** (len(options["depth"]) - 1)
        smallest = 4 * smallest - 3 if stem == "imagenet" else smallest
    else:
        options["width"] = draw(CHANNELS)
        options["block"] = draw(st.sampled_from(["basic", "bottleneck"]))
        options["shortcut"] = draw(st.sampled_from(["projection", "zero-pad", "none"]))
        if options["block"] == "bottleneck":
            options["stride_on"] = draw(st.sampled_from(["3x3", "1x1"]))
    height = max(draw(SIDES), smallest)
    width = max(draw(SIDES.filter(lambda side: side * height <= 400)), smallest)
    return {
        "build": densenet if dense else resnet,
        "options": options,
        "kind": kind,
        "images": (draw(st.integers(1, 5)), options["in_channels"], height, width),
        "training": draw(st.booleans()),
        "seed": draw(st.integers(0, 2**16)),
    }


class Decisions:
    """Paddle's functions, which keep what ReLUs and max pools decide by."""

    def __init__(self) -> None:
        self.margins: list[np.ndarray] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(F, name)

    def relu(self, x: paddle.Tensor) -> paddle.Tensor:
        self.margins.append(x.numpy().ravel())
        return F.relu(x)

    def max_pool2d(self, x: paddle.Tensor, *geometry: int) -> paddle.Tensor:
        n, c, _, _ = x.shape
        windows = F.unfold(x.detach(), *geometry).reshape([n, c, 9, -1]).numpy()
        second, first = np.sort(windows, axis=2)[:, :, -2:].transpose([2, 0, 1, 3])
        self.margins.append((first - second)[first > 0])  # among zeros, any may win: no gradient
        return F.max_pool2d(x, *geometry)


def are_clear(exact: Decisions, rounded: Decisions) -> bool:
    """Whether rounding can change no decision of a ReLU or a max pool.

    Where a value is so near to zero that it can, float64 has either gradient for inputs that are
    the same in float32, and none is the right one. Outputs have no such jumps. Exact zeros, those
    of earlier ReLUs, are no matter of rounding.
    """
    for right, near in zip(exact.margins, rounded.margins, strict=True):
        if right.shape != near.shape:
            return False
        rounded_values = (right != 0) | (near != 0)
        error = np.abs(right - near).max(initial=0)
        if np.abs(right[rounded_values]).min(initial=np.inf) <= 4 * error:
            return False
    return True


def set_values(network: nn.Layer, rng: np.random.Generator, nudge: float, dtype: str) -> None:
    """Weights as they start, and norms away from ones and zeros; in float64 equal to float32."""
    for name, tensor in network.state_dict().items():
        noise = rng.normal(size=tensor.shape)
        if tensor.ndim > 1:
            noise *= np.sqrt(2 / np.prod(tensor.shape[1:]))
        elif name.endswith(("bias", "_mean")):
            noise *= 0.3
        else:
            noise = np.abs(1 + 0.3 * noise) + 0.1
        noise *= 1 + nudge * np.random.default_rng(noise.size).normal(size=noise.shape)
        tensor.set_value(noise.astype("float32").astype(dtype))


def compute(
    network: nn.Layer, case: dict[str, Any], dtype: str = "float32", nudge: float = 0.0
) -> tuple[Results, Results]:
    """The logits and running statistics after a step, and all gradients.

    Args:
        nudge: how far to move each weight from what it is, in relation to it.
    """
    rng = np.random.default_rng(case["seed"])

    def noise(shape: Any) -> paddle.Tensor:
        return paddle.to_tensor(rng.normal(size=shape).astype("float32").astype(dtype))

    set_values(network, rng, nudge, dtype)
    network.train() if case["training"] else network.eval()
    images = noise(case["images"])
    images.stop_gradient = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of stems for larger images
        logits = network(images)
    (logits * noise(logits.shape)).sum().backward()
    values, gradients = {"logits": logits.numpy()}, {"images": images.grad.numpy()}
    for name, tensor in network.state_dict().items():
        if tensor.stop_gradient:
            values[name] = tensor.numpy()
        else:
            assert tensor.grad is not None, name
            gradients[name] = tensor.grad.numpy()
    network.clear_gradients()
    return values, gradients


def compute_by_paddle(
    network: nn.Layer, case: dict[str, Any], dtype: str
) -> tuple[tuple[Results, Results], Decisions]:
    """The same, by the plain backend, and what was decided by."""
    decisions = Decisions()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain, "F", decisions)
        return compute(network, case, dtype), decisions


def check(case: dict[str, Any]) -> None:
    """Compare every backend with float64, by the error of Paddle's own operations in float32.

    That is what float32 costs on this network: the most in four runs, of which three have weights
    moved by their last bit, for one run may be lucky. Other orders of the same sums may cost more:
    in 60,000 tensors, 6 times as much in one of 10,000, and 12 times at most, where Paddle itself
    sums images with their channels last; 30 times is allowed. Where hardly anything is rounded, the
    cost counts as some units in the last place (2e-6) of the largest value. Norms subtract
    gradients that are nearly equal, and what is left has the rounding of both: a gradient's largest
    value counts as a tenth of the network's largest at least.
    """
    network, exact_network = (
        case["build"](**case["options"], layers=KINDS[case["kind"]]) for _ in range(2)
    )
    exact_network.to(dtype="float64")
    exact, decisions = compute_by_paddle(exact_network, case, "float64")
    first, rounded = compute_by_paddle(network, case, "float32")
    nudged = [compute(network, case, nudge=nudge) for nudge in (6e-8, -6e-8, 1.2e-7)]
    backends = {}
    for backend in BACKENDS:
        use_backend(network, backend)
        backends[backend] = compute(network, case)
    compared = exact if are_clear(decisions, rounded) else exact[:1]
    for kind, right in enumerate(compared):
        largest = max(np.abs(value).max() for value in right.values())
        for name, value in right.items():
            assert value.dtype == np.float64
            scale = max(np.abs(value).max(), largest / 10 if kind == 1 else 0)
            costs = [np.abs(run[kind][name] - value).max() for run in (first, *nudged)]
            for backend, found in backends.items():
                assert found[kind].keys() == right.keys()
                assert found[kind][name].shape == value.shape
                error = np.abs(found[kind][name] - value).max()
                assert error <= 30 * (max(costs) + 2e-6 * scale), (backend, name, error, costs)


@settings(max_examples=50, derandomize=True, deadline=None, suppress_health_check=SLOW)
@given(networks())
def test_engines_compute_what_paddle_does_in_float64(case):
    check(case)


@pytest.mark.slow
@settings(max_examples=250, deadline=None, suppress_health_check=SLOW)
@given(networks())
def test_engines_compute_what_paddle_does_in_float64_in_many_networks(case):
    check(case)
