"""Freezing parts of a network, and training them at a rate of their own."""

import numpy as np
import paddle
import pytest

from resnet_fit import resnet
from resnet_fit.backends import use_backend
from resnet_fit.config import schema
from resnet_fit.errors import UserError
from resnet_fit.networks import freeze
from resnet_fit.training.objectives import CrossEntropy
from resnet_fit.training.optimizers import make_optimizer

OPTIMIZERS = [
    schema.SGD(name="sgd", learning_rate=0.1),
    schema.Momentum(name="momentum", learning_rate=0.1, weight_decay=0.01),
    schema.Adam(name="adam", learning_rate=0.1),
    schema.Adam(name="adamw", learning_rate=0.1, weight_decay=0.01),
    schema.Lamb(name="lamb", learning_rate=0.1, weight_decay=0.01),
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


@pytest.mark.parametrize("engine", ["framework", "onednn"])
@pytest.mark.parametrize(
    ("parts", "kept"),
    [
        (["backbone"], lambda name: not name.startswith("fc.")),
        (["conv1", "bn1", "layer1"], lambda n: n.split(".")[0] in ("conv1", "bn1", "layer1")),
        (["layer2.0.bn2"], lambda name: name.startswith("layer2.0.bn2.")),
    ],
)
def test_frozen_parts_stay_to_the_last_bit_and_others_do_not(engine, parts, kept):
    network = small()
    use_backend(network, engine)
    freeze(network, parts)
    before = state(network)
    train(network, make_optimizer(network, OPTIMIZERS[1], 0.1))
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


@pytest.mark.parametrize("engine", ["framework", "onednn"])
def test_gradients_pass_a_frozen_norm(engine):
    """What is before a frozen part learns through it, by its running statistics."""
    network = small()
    use_backend(network, engine)
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


@pytest.mark.parametrize("config", OPTIMIZERS, ids=lambda config: config.name)
def test_rate_factors_are_rates(config):
    """Each part moves as a network that is trained at that rate as a whole."""
    factors = {"backbone": 0.5, "layer2": 0.25, "layer2.0.conv1": 2.0}

    def factor(name):
        if name.startswith("layer2.0.conv1."):
            return 2.0
        if name.startswith("layer2."):
            return 0.25
        return 1.0 if name.startswith("fc.") else 0.5

    network = small()
    configured = config.model_copy(update={"rate_factors": factors})
    train(network, make_optimizer(network, configured, 0.1), steps=1)
    for value in (1.0, 0.5, 0.25, 2.0):
        reference = small()
        train(reference, make_optimizer(reference, config, 0.1 * value), steps=1)
        for name, parameter in network.named_parameters():
            if factor(name) == value:
                expected = dict(reference.named_parameters())[name].numpy()
                np.testing.assert_allclose(parameter.numpy(), expected, rtol=1e-5, err_msg=name)


def test_unknown_parts_are_named():
    with pytest.raises(UserError, match=r"freeze: no part of the network is named 'layer9'\. Did"):
        freeze(small(), ["layer9"])
    config = OPTIMIZERS[0].model_copy(update={"rate_factors": {"fcc": 2.0}})
    with pytest.raises(UserError, match=r"optimizer\.rate_factors: .* Did you mean 'fc'\?"):
        make_optimizer(small(), config, 0.1)
