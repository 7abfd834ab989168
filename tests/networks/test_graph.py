"""A network is drawn without being touched."""

from __future__ import annotations

import json

import numpy as np
import paddle
import pytest

from resnet_fit import densenet, resnet
from resnet_fit.networks.graph import describe_graph

NETWORKS = {
    "resnet": lambda: resnet([1, 1], 5, "cifar", width=4),
    "densenet": lambda: densenet([2, 2], 5, growth=4, stem="cifar"),
    "any": lambda: paddle.nn.Sequential(paddle.nn.Conv2D(3, 4, 3), paddle.nn.Flatten()),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_network_stays_as_it_is(name):
    network = NETWORKS[name]()
    images = paddle.rand([2, 3, 8, 8])
    layers = network.sublayers(include_self=True)
    network.eval()
    before = network(images).numpy()
    network.train()
    names = [layer.full_name() for layer in layers]
    following = paddle.utils.unique_name.generate("x")
    convolutions = [layer for layer in layers if isinstance(layer, paddle.nn.Conv2D)]

    graph = json.loads(describe_graph(network, (3, 8, 8)))

    assert [node["type"] for node in graph["nodes"]].count("conv2d") == len(convolutions)
    assert [layer.full_name() for layer in layers] == names
    assert not any(layer._forward_pre_hooks or layer._forward_post_hooks for layer in layers)
    assert all(layer.training for layer in layers)
    assert "forward" not in vars(network)
    after = paddle.utils.unique_name.generate("x")
    assert int(after.rpartition("_")[2]) == int(following.rpartition("_")[2]) + 1
    network.eval()
    assert np.array_equal(network(images).numpy(), before)
    assert paddle.in_dynamic_mode()


def test_random_numbers_go_on_as_they_would():
    network = NETWORKS["resnet"]()
    paddle.seed(3)
    expected = paddle.rand([4]).numpy()
    paddle.seed(3)
    describe_graph(network, (3, 8, 8))
    assert np.array_equal(paddle.rand([4]).numpy(), expected)
