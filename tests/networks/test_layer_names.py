"""Freezing layers of a network, and training them at a rate of their own."""

import numpy as np
import paddle
import pytest

from resnet_fit import resnet
from resnet_fit.backends import use_backend
from resnet_fit.errors import UserError
from resnet_fit.networks import freeze
from resnet_fit.training.objectives import CrossEntropy
from resnet_fit.training.optimizers.adam import Adam, AdamW
from resnet_fit.training.optimizers.lamb import Lamb
from resnet_fit.training.optimizers.momentum import Momentum
from resnet_fit.training.optimizers.sgd import SGD

OPTIMIZERS = [
    SGD(learning_rate=0.1),
    Momentum(learning_rate=0.1, weight_decay=0.01),
    Adam(learning_rate=0.1),
    AdamW(learning_rate=0.1, weight_decay=0.01),
    Lamb(learning_rate=0.1, weight_decay=0.01),
]


def small():
    paddle.seed(0)
    return resnet([1, 1], num_classes=5, stem="cifar", width=8)


def train(network, optimizer, steps=2):
    rng = np.random.default_rng(0)
    network.train()
    for _ in range(steps):
        images = paddle.to_tensor(rng.normal(size=(4, 3, 8, 8)).astype("float32"))
        CrossEntropy()(network(images), paddle.to_tensor([0, 1, 2, 3])).backward()
        optimizer.step()
        optimizer.clear_grad()


def state(network):
    return {name: value.numpy().copy() for name, value in network.state_dict().items()}


@pytest.mark.parametrize("backend", ["paddle", "onednn"])
@pytest.mark.parametrize(
    ("parts", "kept"),
    [
        (["backbone"], lambda name: not name.startswith("fc.")),
        (["conv1", "bn1", "layer1"], lambda n: n.split(".")[0] in ("conv1", "bn1", "layer1")),
        (["layer2.0.bn2"], lambda name: name.startswith("layer2.0.bn2.")),
    ],
)
def test_frozen_layers_stay_to_the_last_bit_and_others_do_not(backend, parts, kept):
    network = small()
    use_backend(network, backend)
    freeze(network, parts)
    before = state(network)
    train(network, OPTIMIZERS[1].build(network, 0.1))
    for name, value in state(network).items():
        assert np.array_equal(value, before[name]) == kept(name), name


def test_a_frozen_backbone_computes_in_training_what_it_does_in_evaluation():
    network = small()
    use_backend(network, "onednn")
    freeze(network)
    images = paddle.to_tensor(np.random.default_rng(1).normal(size=(4, 3, 8, 8)).astype("float32"))
    network.train()
    training = network(images).numpy()
    network.eval()
    np.testing.assert_allclose(training, network(images).numpy(), atol=1e-6)


@pytest.mark.parametrize("backend", ["paddle", "onednn"])
def test_gradients_pass_a_frozen_norm(backend):
    """What is before a frozen part learns through it, by its running statistics."""
    network = small()
    use_backend(network, backend)
    freeze(network, ["layer2"])
    network.train()
    images = paddle.to_tensor(np.random.default_rng(1).normal(size=(4, 3, 8, 8)).astype("float32"))
    CrossEntropy()(network(images), paddle.to_tensor([0, 1, 2, 3])).backward()
    reference = small()
    reference.set_state_dict(state(network))
    reference.train()
    for name, layer in reference.named_sublayers():
        if name.startswith("layer2") and isinstance(layer, paddle.nn.BatchNorm2D):
            layer.eval()
    CrossEntropy()(reference(images), paddle.to_tensor([0, 1, 2, 3])).backward()
    np.testing.assert_allclose(
        network.conv1.weight.grad.numpy(), reference.conv1.weight.grad.numpy(), atol=1e-5
    )


@pytest.mark.parametrize("config", OPTIMIZERS, ids=lambda config: config.part_name)
def test_factors_multiply_the_rate(config):
    """Each part moves as a network that is trained at that rate as a whole."""
    factors = {"backbone": 0.5, "layer2": 0.25, "layer2.0.conv1": 2.0}

    def factor(name):
        if name.startswith("layer2.0.conv1."):
            return 2.0
        if name.startswith("layer2."):
            return 0.25
        return 1.0 if name.startswith("fc.") else 0.5

    network = small()
    configured = config.model_copy(update={"lr_factors": factors})
    train(network, configured.build(network, 0.1), steps=1)
    for value in (1.0, 0.5, 0.25, 2.0):
        reference = small()
        train(reference, config.build(reference, 0.1 * value), steps=1)
        for name, parameter in network.named_parameters():
            if factor(name) == value:
                expected = dict(reference.named_parameters())[name].numpy()
                np.testing.assert_allclose(parameter.numpy(), expected, rtol=1e-5, err_msg=name)


def test_unknown_layers_are_named():
    with pytest.raises(UserError, match=r"freeze: the network has no layer 'layer9'\. Did"):
        freeze(small(), ["layer9"])
    config = OPTIMIZERS[0].model_copy(update={"lr_factors": {"fcc": 2.0}})
    with pytest.raises(UserError, match=r"optimizer\.lr_factors: .* Did you mean 'fc'\?"):
        config.build(small(), 0.1)
