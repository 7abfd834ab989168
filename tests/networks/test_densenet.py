import json
import math
from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from drawn_weights import draw, images
from paddle import nn

from resnet_fit.errors import UserError
from resnet_fit.networks import Layers, count_macs, count_parameters, densenet
from resnet_fit.networks.weights import from_torch

REFERENCE = json.loads((Path(__file__).parent / "references/torchvision_densenet.json").read_text())
SIZES = {
    121: (6, 12, 24, 16),
    161: (6, 12, 36, 24),
    169: (6, 12, 32, 32),
    201: (6, 12, 48, 32),
}

pytestmark = pytest.mark.filterwarnings("ignore:stem='imagenet' shrinks")


def noise(*shape):
    return paddle.to_tensor(np.random.default_rng(1).normal(size=shape).astype("float32"))


def torch_names(block_sizes):
    """The state dict of torchvision's DenseNet, name by name."""

    def norm(name):
        return [f"{name}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]

    names = ["features.conv0.weight", *norm("features.norm0")]
    for block, size in enumerate(block_sizes, start=1):
        for layer in range(1, size + 1):
            inside = f"features.denseblock{block}.denselayer{layer}"
            names += [*norm(f"{inside}.norm1"), f"{inside}.conv1.weight"]
            names += [*norm(f"{inside}.norm2"), f"{inside}.conv2.weight"]
        if block < len(block_sizes):
            transition = f"features.transition{block}"
            names += [*norm(f"{transition}.norm"), f"{transition}.conv.weight"]
    return [*names, *norm("features.norm5"), "classifier.weight", "classifier.bias"]


def give_drawn_weights(block_sizes, *networks):
    """The weights torchvision's references were made with."""
    state = {}
    values = networks[0].state_dict().values()
    for name, value in zip(torch_names(block_sizes), values, strict=True):
        torch_shape = reversed(value.shape) if name == "classifier.weight" else value.shape
        state[name] = draw(name, tuple(torch_shape))
    for network in networks:
        assert network.set_state_dict(from_torch(state)) == ([], [])
        network.eval()


@pytest.mark.parametrize("depth", SIZES)
def test_outputs_equal_those_of_torchvision_and_paddle_vision(depth):
    ours = densenet(depth, num_classes=10)
    theirs = getattr(paddle.vision.models, f"densenet{depth}")(num_classes=10)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    give_drawn_weights(SIZES[depth], ours, theirs)
    x = paddle.to_tensor(images(REFERENCE["pixels"]))
    with paddle.no_grad():
        logits = ours(x).numpy()
        np.testing.assert_allclose(logits, theirs(x).numpy(), rtol=0, atol=1e-5)
    np.testing.assert_allclose(logits, REFERENCE[str(depth)], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("depth", "parameters", "macs"),
    [
        (121, 7_978_856, 2_834_161_664),
        (161, 28_681_000, 7_727_907_072),
        (169, 14_149_480, 3_359_843_328),
        (201, 20_013_928, 4_291_365_888),
    ],
)
def test_size_is_the_published_one(depth, parameters, macs):
    network = densenet(depth)
    assert count_parameters(network) == parameters
    assert count_macs(network, 224) == macs


def size_by_hand(layers, growth, classes):
    """Parameters and multiply-accumulates at 32 px, by the description in Huang et al. 2016."""
    channels, pixels = 2 * growth, 32 * 32
    parameters = weights = 3 * 9 * channels
    macs = weights * pixels
    for block in range(3):
        for _ in range(layers):
            weights = channels * 4 * growth + 4 * growth * 9 * growth
            parameters += weights + 2 * channels + 2 * 4 * growth
            macs += weights * pixels
            channels += growth
        if block < 2:
            weights = channels * (channels // 2)
            parameters += weights + 2 * channels
            macs += weights * pixels
            channels, pixels = channels // 2, pixels // 4
    return parameters + 2 * channels + (channels + 1) * classes, macs + channels * classes


# Huang et al. 2016, table 2: L, k, and millions of parameters.
@pytest.mark.parametrize(
    ("depth", "growth", "millions"), [(100, 12, "0.8"), (250, 24, "15.3"), (190, 40, "25.6")]
)
def test_size_of_the_papers_cifar_nets(depth, growth, millions):
    network = densenet(depth, num_classes=10, stem="cifar", growth=growth)
    parameters, macs = size_by_hand((depth - 4) // 6, growth, 10)
    assert count_parameters(network) == parameters
    assert f"{parameters / 1e6:.1f}" == millions
    convolutions = [
        layer for layer in network.sublayers() if isinstance(layer, (nn.Conv2D, nn.Linear))
    ]
    assert len(convolutions) == depth
    if depth == 100:
        assert parameters == 769_162
        assert count_macs(network, 32) == macs


def test_a_layer_appends_to_the_channels_before_it():
    network = densenet([3, 2], num_classes=2, stem="cifar", growth=4)
    x = noise(2, 8, 6, 6)
    for layer in network.db_conv_2:
        y = layer(x)
        assert y.shape == [2, x.shape[1] + 4, 6, 6]
        np.testing.assert_array_equal(y[:, : x.shape[1]].numpy(), x.numpy())
        assert np.abs(y[:, x.shape[1] :].numpy()).max() > 0
        x = y
    assert network.tr_conv2_blk(x).shape == [2, 10, 3, 3]


def test_a_layer_is_norm_relu_1x1_norm_relu_3x3():
    layer = densenet([1], num_classes=2, stem="cifar", growth=4).db_conv_2[0]
    x = noise(2, 8, 6, 6)
    expected = x
    for part, kernel in ((layer.bn_ac_func1, 1), (layer.bn_ac_func2, 3)):
        mean, variance = expected.mean([0, 2, 3]), expected.var([0, 2, 3], unbiased=False)
        normed = (expected - mean.reshape([1, -1, 1, 1])) / paddle.sqrt(
            variance.reshape([1, -1, 1, 1]) + 1e-5
        )
        weight = part._conv.weight
        assert weight.shape == [(16, 8, 1, 1), (4, 16, 3, 3)][kernel // 3]
        expected = F.conv2d(paddle.maximum(normed, paddle.zeros([1])), weight, padding=kernel // 2)
    np.testing.assert_allclose(layer(x)[:, 8:].numpy(), expected.numpy(), atol=1e-5)


def test_a_transition_averages_four_pixels():
    network = densenet([1, 1], num_classes=2, stem="cifar", growth=4)
    pooled = network.tr_conv2_blk(noise(2, 12, 6, 6)).numpy()
    convolved = network.tr_conv2_blk.conv_ac_func(noise(2, 12, 6, 6)).numpy()
    expected = convolved.reshape(2, 6, 3, 2, 3, 2).mean(axis=(3, 5))
    np.testing.assert_allclose(pooled, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("depth", "options", "sizes", "growth"),
    [
        (100, {"stem": "cifar"}, [16, 16, 16], 12),
        (10, {"stem": "cifar", "growth": 3}, [1, 1, 1], 3),
        ([2, 1], {"stem": "cifar"}, [2, 1], 12),
        ([1, 2, 1, 1], {"growth": 8}, [1, 2, 1, 1], 8),
    ],
)
def test_depth_gives_the_blocks(depth, options, sizes, growth):
    network = densenet(depth, num_classes=2, **options)
    blocks = [block for name, block in network.named_children() if name.startswith("db_conv")]
    assert [len(block) for block in blocks] == sizes
    assert network.conv1_func._conv.weight.shape[0] == 2 * growth
    assert {layer.bn_ac_func2._conv.weight.shape[0] for b in blocks for layer in b} == {growth}


def test_initial_weights():
    paddle.seed(0)
    network = densenet(121)
    for name, weight in (
        ("stem", network.conv1_func._conv.weight),
        ("1x1", network.db_conv_4.conv4_20.bn_ac_func1._conv.weight),
        ("3x3", network.db_conv_4.conv4_20.bn_ac_func2._conv.weight),
        ("transition", network.tr_conv3_blk.conv_ac_func._conv.weight),
    ):
        fan_out = weight.shape[0] * weight.shape[2] * weight.shape[3]
        deviation = math.sqrt(2 / fan_out)
        assert float(weight.std()) == pytest.approx(deviation, rel=0.05), name
        assert abs(float(weight.mean())) < 0.05 * deviation, name
    bound = 1 / math.sqrt(1024)
    values = network.out.weight.numpy()
    assert np.abs(values).max() <= bound
    assert values.std() == pytest.approx(bound / math.sqrt(3), rel=0.1)
    assert (network.out.bias.numpy() == 0).all()
    norms = [layer for layer in network.sublayers() if isinstance(layer, nn.BatchNorm2D)]
    assert len(norms) == 2 * 58 + 3 + 2
    assert all((norm.weight.numpy() == 1).all() for norm in norms)
    assert all((norm.bias.numpy() == 0).all() for norm in norms)


def test_one_line_changes_every_layer():
    def group_norm(channels, weight=1.0):
        return nn.GroupNorm(2, channels)

    network = densenet([1, 1], 3, "cifar", growth=4, layers=Layers(norm=group_norm))
    kinds = [type(layer) for layer in network.sublayers()]
    assert nn.BatchNorm2D not in kinds
    assert kinds.count(nn.GroupNorm) == 2 * 2 + 1 + 1
    assert network(noise(2, 3, 8, 8)).shape == [2, 3]


def test_gray_images():
    network = densenet([1, 1], num_classes=4, stem="cifar", in_channels=1, growth=4)
    assert network(noise(2, 1, 28, 28)).shape == [2, 4]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 120}, "depth: 120 .* choose 121, 161, 169, 201 or 264, nearest 121"),
        ({"depth": 100}, r"nearest 121.*For 6n\+4: stem 'cifar'"),
        ({"depth": 101, "stem": "cifar"}, r"choose 6n\+4 \(10, 16, ..., 100\), nearest 100"),
        ({"depth": 4, "stem": "cifar"}, "nearest 10"),
        ({"depth": "121"}, "depth: expected a depth .* received '121'"),
        ({"depth": 121.0}, "depth: .* received 121.0"),
        ({"depth": True}, "depth: .* received True"),
        ({"depth": []}, r"depth: .* received \[\]"),
        ({"depth": [2, 0]}, r"depth: .* received \[2, 0\]"),
        ({"depth": 121, "stem": "imagnet"}, "stem: .* Did you mean 'imagenet'"),
        ({"depth": 121, "stem": "cifar3"}, "Did you mean 'cifar'"),
        ({"depth": 121, "num_classes": 0}, "num_classes: received 0, expected"),
        ({"depth": 121, "growth": 0}, "growth: expected more than 0, received 0"),
        ({"depth": 121, "in_channels": -1}, "in_channels: received -1"),
    ],
)
def test_what_does_not_exist_is_refused_in_one_line(options, message):
    with pytest.raises(UserError, match=message) as caught:
        densenet(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("blocks", "stem", "smallest"),
    [(1, "cifar", 1), (3, "cifar", 4), (4, "imagenet", 29), (2, "imagenet", 5)],
)
def test_images_too_small_for_every_transition_are_refused(blocks, stem, smallest):
    network = densenet([1] * blocks, 2, stem, growth=2)
    network.eval()
    assert network(noise(1, 3, smallest, smallest)).shape == [1, 2]
    if smallest > 1:
        with pytest.raises(UserError, match=rf"of {smallest - 1} px .* need {smallest} px"):
            network(noise(1, 3, smallest, smallest - 1))


@pytest.mark.filterwarnings("error")
def test_small_images_before_a_large_stem_are_told():
    network = densenet([1], 2, growth=2)
    network.eval()
    with pytest.warns(UserWarning, match=r"32 px to 8 px .* stem='cifar'"):
        network(noise(1, 3, 32, 32))
    network(noise(1, 3, 32, 32))


@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
def test_static_graph_gives_the_same_logits(stem):
    options = {"num_classes": 3, "stem": stem, "growth": 4}
    network = densenet([1, 2], **options)
    network(noise(4, 3, 16, 16))  # The running statistics move.
    network.eval()
    x = images(16)
    expected = network(paddle.to_tensor(x)).numpy()
    state = {name: value.numpy() for name, value in network.state_dict().items()}
    paddle.enable_static()
    try:
        main, startup = paddle.static.Program(), paddle.static.Program()
        with paddle.static.program_guard(main, startup):
            static = densenet([1, 2], **options)
            static.eval()
            logits = static(paddle.static.data("x", [None, 3, 16, 16], "float32"))
            executor = paddle.static.Executor(paddle.CPUPlace())
            executor.run(startup)
            static.set_state_dict(state)
            (result,) = executor.run(main, feed={"x": x}, fetch_list=[logits])
    finally:
        paddle.disable_static()
    np.testing.assert_allclose(result, expected, atol=1e-5)
