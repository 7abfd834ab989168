"""Freezing layers of a network, and training them at a rate of their own."""

import numpy as np
import paddle
import pytest
from paddle import nn

from resnet_fit import fit, load_weights, parse_config, resnet
from resnet_fit.backends import use_backend
from resnet_fit.errors import UserError
from resnet_fit.networks import freeze
from resnet_fit.networks.layer_names import head_of
from resnet_fit.parts import ArrayDataset
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


# --- networks of any origin: which layer gives the logits -----------------------------------


class Own(nn.Layer):
    """The classifier is a linear layer within the last child; Dropout comes after it."""

    def __init__(self, classes=3, bias=None):
        super().__init__()
        self.scale = self.create_parameter([1], default_initializer=nn.initializer.Constant(1.0))
        self.features = nn.Linear(8, 4)
        self.norm = nn.BatchNorm1D(4)
        self.classifier = nn.Sequential(nn.ReLU(), nn.Linear(4, classes, bias_attr=bias))
        self.drop = nn.Dropout(0.0)

    def forward(self, images):
        return self.drop(self.classifier(self.norm(self.features(self.scale * images.flatten(1)))))


class ClassifierFirst(nn.Layer):
    """What is defined last does not come last."""

    def __init__(self, classes=3, last=None):
        super().__init__()
        self.fc = nn.Linear(4, classes)
        self.last = last or nn.Conv2D(2, 4, 2)

    def forward(self, images):
        return self.fc(self.last(images).flatten(1))


def test_the_backbone_of_ones_own_network_is_all_but_its_classifier():
    network = Own()
    freeze(network)
    before = state(network)
    optimizer = paddle.optimizer.SGD(0.1, parameters=network.parameters())
    network.train()
    network(paddle.rand([4, 2, 2, 2])).square().sum().backward()
    optimizer.step()
    changed = {name for name, value in state(network).items() if (value != before[name]).any()}
    assert changed == {"classifier.1.weight", "classifier.1.bias"}


def test_a_classifier_that_is_not_the_last_layer_is_asked_for():
    """Not taken for a part of the backbone, which would then be all that is trained."""
    network = ClassifierFirst()
    told = r"the layer that gives the logits is not the last of ClassifierFirst: define it last"
    with pytest.raises(UserError, match=told):
        freeze(network)
    factors = OPTIMIZERS[0].model_copy(update={"lr_factors": {"backbone": 0.1}})
    with pytest.raises(UserError, match=told):
        factors.build(network, 0.1)
    freeze(network, ["last"])  # needs no head
    assert [p.stop_gradient for p in network.parameters()] == [False, False, True, True]


def test_a_network_can_name_its_classifier():
    network = ClassifierFirst()
    network.head_name = "fc"
    freeze(network)
    assert [p.stop_gradient for p in network.parameters()] == [False, False, True, True]
    network.head_name = "fcc"
    with pytest.raises(UserError, match=r"head_name: there is no layer 'fcc'\. Did you mean 'fc'"):
        freeze(network)


def test_another_linear_layer_at_the_end_is_noticed_by_its_size():
    network = ClassifierFirst(last=nn.Sequential(nn.Flatten(), nn.Linear(8, 4)))
    with pytest.raises(UserError, match=r"last\.1, gives 4 numbers instead of 3, one for each cl"):
        head_of(network, 3)
    assert head_of(Own(), 3) == "classifier.1"


@pytest.mark.parametrize("bias", [None, False])
def test_other_classes_leave_the_classifier_of_ones_own_network_alone(tmp_path, bias):
    source, network = Own(7, bias), Own(3, bias)
    paddle.save(source.state_dict(), str(tmp_path / "w.pdparams"))
    before = state(network)
    with pytest.warns(UserWarning, match="made for 7 classes: its last layer is not loaded"):
        report = load_weights(network, tmp_path / "w.pdparams")
    assert report.other_classes == 7
    kept = {name: value for name, value in before.items() if name.startswith("classifier")}
    for name, value in (state(source) | kept).items():
        np.testing.assert_array_equal(network.state_dict()[name].numpy(), value, name)


def test_other_classes_in_a_layer_that_is_not_the_last_are_refused(tmp_path):
    paddle.save(ClassifierFirst(7).state_dict(), str(tmp_path / "w.pdparams"))
    with pytest.raises(UserError, match=r"of another shape \(fc\.weight 4x7 for 4x3"):
        load_weights(ClassifierFirst(), tmp_path / "w.pdparams")


def run_of(network, folder, model=None, optimizer=None):
    images = np.random.default_rng(0).integers(0, 256, [6, 2, 2, 2], np.uint8)
    data = ArrayDataset(images, [0, 1, 2] * 2, ("a", "b", "c"))
    config = parse_config(
        {
            "model": {"name": "given", **(model or {})},
            "data": {"name": "given", "batch_size": 2},
            "augmentation": {"train": ["normalize"]},
            "optimizer": {"name": "sgd", "learning_rate": 0.1, **(optimizer or {})},
            "training": {"epochs": 1},
            "callbacks": {"visualdl": None},
        }
    )
    return fit(config, folder, "run", network=network, data=(data, data))


@pytest.mark.parametrize(
    "settings",
    [{"optimizer": {"lr_factors": {"backbone": 0.5}}}, {"model": {"freeze": ["backbone"]}}],
)
def test_a_run_refuses_a_backbone_without_a_known_head(tmp_path, settings):
    network = ClassifierFirst(last=nn.Sequential(nn.Flatten(), nn.Linear(8, 4)))
    with pytest.raises(UserError, match="instead of 3, one for each class"):
        run_of(network, tmp_path, **settings)
    assert not (tmp_path / "run").exists()


def test_a_run_freezes_the_backbone_of_a_network_that_is_handed_over(tmp_path):
    network = Own()
    before = state(network)
    run_of(network, tmp_path, model={"freeze": ["backbone"]})
    changed = {name for name, value in state(network).items() if (value != before[name]).any()}
    assert changed == {"classifier.1.weight", "classifier.1.bias"}
