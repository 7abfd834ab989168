"""What is coloured is what the logit is made of, and looking changes nothing."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from resnet_fit.backends import onednn_problem, use_backend
from resnet_fit.evaluation.saliency import class_activation_maps, input_gradients, saliency
from resnet_fit.networks import densenet, resnet

NETWORKS = {
    "basic": lambda: resnet([1, 1], 5, "cifar", width=8),
    "bottleneck": lambda: resnet([1, 1], 5, "cifar", width=8, block="bottleneck"),
    "dense": lambda: densenet([2, 2], 5, "cifar", growth=4),
}
BACKENDS = ["paddle", *(["onednn"] if not onednn_problem() else [])]


def state(network):
    layers = network.sublayers(include_self=True)
    hooks = [(len(x._forward_pre_hooks), len(x._forward_post_hooks)) for x in layers]
    values = {name: value.numpy().tobytes() for name, value in network.state_dict().items()}
    flags = [(p.stop_gradient, p.grad is None) for p in network.parameters()]
    return hooks, values, flags, [x.training for x in layers]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_maps_mean_and_the_bias_are_the_logit(name, backend):
    paddle.seed(0)
    network = NETWORKS[name]()
    network.eval()
    use_backend(network, backend)
    images, classes = paddle.randn([3, 3, 16, 12]), np.array([0, 4, 2])
    before = state(network)
    maps = class_activation_maps(network, images, classes)
    logits = network(images).numpy()[np.arange(3), classes]
    bias = (network.out if name == "dense" else network.fc).bias.numpy()[classes]
    np.testing.assert_allclose(maps.mean(axis=(1, 2)) + bias, logits, rtol=1e-4, atol=1e-5)
    shown, method = saliency(network, images, classes)
    assert shown.shape == (3, 16, 12)
    assert method == "class activation map"
    assert state(network) == before


def test_gradients_where_the_last_map_is_one_pixel():
    network = resnet([1, 1, 1, 1], 5, "cifar", width=8)
    network.eval()
    images = paddle.randn([2, 3, 8, 8])
    before = state(network)
    shown, method = saliency(network, images, np.array([1, 3]))
    assert method == "input gradient"
    assert shown.max(axis=(1, 2)).tolist() == [1, 1]
    assert state(network) == before


def test_the_gradients_of_a_linear_network_are_its_weights():
    network = paddle.nn.Sequential(paddle.nn.Flatten(), paddle.nn.Linear(2 * 3 * 4, 5))
    images, classes = paddle.randn([2, 2, 3, 4]), np.array([1, 3])
    weights = np.abs(network[1].weight.numpy().T[classes].reshape(2, 2, 3, 4))
    np.testing.assert_allclose(input_gradients(network, images, classes), weights.max(1), rtol=1e-6)


def test_a_network_whose_gradient_vanishes_has_an_empty_map():
    network = paddle.nn.Sequential(paddle.nn.Flatten(), paddle.nn.Linear(12, 2))
    network[1].weight.set_value(paddle.zeros([12, 2]))
    shown, _ = saliency(network, paddle.randn([1, 3, 2, 2]), np.array([0]))
    assert not shown.any()


@pytest.mark.skipif(onednn_problem() is not None, reason="no onednn backend here")
def test_gradients_by_onednn_are_paddles_own():
    network = resnet([1, 1], 10, "cifar", width=16)
    network.eval()
    images, classes = paddle.randn([2, 3, 8, 8]), np.array([1, 3])
    expected = input_gradients(network, images, classes)
    use_backend(network, "onednn")
    np.testing.assert_allclose(input_gradients(network, images, classes), expected, atol=1e-5)
    assert all(parameter.grad is None for parameter in network.parameters())
