"""Paddle's ways to differentiate work through every backend, or are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import paddle
import pytest
from paddle import nn

from resnet_fit.backends import onednn_problem, use_backend
from resnet_fit.networks import densenet, resnet

BACKENDS = ["channels_last"] + ([] if onednn_problem() else ["onednn"])
needs_onednn = pytest.mark.skipif(bool(onednn_problem()), reason="no onednn backend here")
# Paddle 2.6 refuses to compute some of the gradients of an operation written in Python.
needs_paddle_3 = pytest.mark.skipif(paddle.__version__.startswith("2."), reason="Paddle 3 only")
NETWORKS: dict[str, Callable[[], nn.Layer]] = {
    "resnet": lambda: resnet([1, 1], 5, "cifar", width=6),
    "dense": lambda: densenet([2, 1], 5, "cifar", growth=6),
}


def build(kind: str, backend: str) -> nn.Layer:
    paddle.seed(0)
    network = NETWORKS[kind]()
    network.eval()  # so that passes can be repeated
    use_backend(network, backend)
    return network


def images() -> paddle.Tensor:
    x = np.random.default_rng(0).normal(size=(3, 3, 8, 8)).astype("float32")
    return paddle.to_tensor(x, stop_gradient=False)


def parameters(network: nn.Layer) -> list[Any]:
    return [p for p in network.parameters() if not p.stop_gradient]


def assert_close(ours: list[paddle.Tensor], expected: list[paddle.Tensor]) -> None:
    assert len(ours) == len(expected)
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-3, atol=1e-5)


WANTED = {
    "images": lambda network, x: [x],
    "parameters": lambda network, x: parameters(network),
    "all": lambda network, x: [*parameters(network)[::-1], x],
    "first weight": lambda network, x: parameters(network)[:1],
    "one in the middle": lambda network, x: [p for p in parameters(network) if p.ndim == 4][-2:-1],
    "last bias and images": lambda network, x: [parameters(network)[-1], x],
}


@needs_paddle_3
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("wanted", WANTED)
@pytest.mark.parametrize("kind", NETWORKS)
def test_some_gradients_alone(kind, wanted, frozen, backend):
    """Twice through one graph, and without a trace in what the optimizer will take."""
    gradients = {}
    for name in ("paddle", backend):
        network, x = build(kind, name), images()
        if frozen:
            for parameter in parameters(network)[1:6]:
                parameter.stop_gradient = True
        loss = (network(x) ** 2).sum()
        inputs = WANTED[wanted](network, x)
        once = paddle.grad(loss, inputs, retain_graph=True)
        gradients[name] = paddle.grad(loss, inputs)
        assert_close(gradients[name], once)
        assert all(tensor.grad is None for tensor in [x, *network.parameters()])
    assert_close(gradients[backend], gradients["paddle"])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", NETWORKS)
def test_gradients_add_up_over_two_passes(kind, backend):
    network, x = build(kind, backend), images()
    network(x).sum().backward()
    once = [p.grad.clone() for p in parameters(network)]
    network(x).sum().backward()
    assert_close([p.grad for p in parameters(network)], [2 * gradient for gradient in once])


@needs_paddle_3
@pytest.mark.parametrize("kind", NETWORKS)
def test_second_derivatives_in_channels_last(kind):
    found = []
    for backend in ("paddle", "channels_last"):
        network, x = build(kind, backend), images()
        network.train()  # Paddle differentiates no norm twice in evaluation
        (gradient,) = paddle.grad(network(x).sum(), [x], create_graph=True)
        (gradient**2).sum().backward()
        found.append([parameters(network)[0].grad, x.grad])
    assert_close(*found)


@needs_onednn
@pytest.mark.parametrize("kind", NETWORKS)
def test_second_derivatives_in_onednn_are_refused(kind):
    """Paddle puts what is raised in a backward pass into an error of its own."""
    network, x = build(kind, "onednn"), images()
    message = "UserError: create_graph=True: the onednn backend has no second derivatives; use"
    with pytest.raises(OSError, match=message):
        paddle.grad(network(x).sum(), [x, *parameters(network)], create_graph=True)


@needs_onednn
def test_a_second_backward_pass_is_refused_before_paddle_crashes():
    network, x = build("resnet", "onednn"), images()
    logits = network(x)
    logits.sum().backward(retain_graph=True)
    with pytest.raises(OSError, match=r"UserError: a second backward\(\) through one graph"):
        (logits**2).sum().backward()


@needs_onednn
@needs_paddle_3
def test_two_losses_of_one_graph():
    found = []
    for backend in ("paddle", "onednn"):
        network, x = build("dense", backend), images()
        logits = network(x)
        (first,) = paddle.grad(logits.sum(), [x], retain_graph=True)
        (logits**2).sum().backward()
        found.append([first, x.grad])
    assert_close(*found)
