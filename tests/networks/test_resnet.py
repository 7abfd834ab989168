import json
import math
from pathlib import Path

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from drawn_weights import draw, images
from paddle import nn

from resnet_fit.backends import onednn_problem, use_backend
from resnet_fit.errors import UserError
from resnet_fit.networks import (
    Layers,
    count_macs,
    count_parameters,
    densenet,
    plain,
    resnet,
)
from resnet_fit.networks.arguments import check_image_size
from resnet_fit.networks.blocks import ZeroPad
from resnet_fit.networks.families.resnet import ResNet as Settings
from resnet_fit.networks.weights import from_torch

REFERENCE = json.loads((Path(__file__).parent / "references/torchvision.json").read_text())
DEPTHS = (18, 34, 50, 101, 152)

pytestmark = pytest.mark.filterwarnings("ignore:stem='imagenet' shrinks")


def noise(*shape):
    return paddle.to_tensor(np.random.default_rng(1).normal(size=shape).astype("float32"))


def give_drawn_weights(*networks):
    """The weights torchvision's references were made with."""
    state = {}
    for name, value in networks[0].state_dict().items():
        torch_name = name.replace("._mean", ".running_mean").replace("._variance", ".running_var")
        torch_shape = reversed(value.shape) if name == "fc.weight" else value.shape
        state[torch_name] = draw(torch_name, tuple(torch_shape))
    for network in networks:
        assert network.set_state_dict(from_torch(state)) == ([], [])
        network.eval()


@pytest.mark.parametrize("depth", DEPTHS)
def test_outputs_equal_those_of_torchvision_and_paddle_vision(depth):
    ours = resnet(depth, num_classes=10)
    theirs = getattr(paddle.vision.models, f"resnet{depth}")(num_classes=10)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    give_drawn_weights(ours, theirs)
    x = paddle.to_tensor(images(REFERENCE["pixels"]))
    with paddle.no_grad():
        logits = ours(x).numpy()
        np.testing.assert_allclose(logits, theirs(x).numpy(), rtol=0, atol=1e-4)
    np.testing.assert_allclose(logits, REFERENCE[str(depth)], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("depth", "parameters", "gmacs"),
    [
        (18, 11_689_512, 1.814),
        (34, 21_797_672, 3.664),
        (50, 25_557_032, 4.089),
        (101, 44_549_160, 7.801),
        (152, 60_192_808, 11.514),
    ],
)
def test_size_is_the_published_one(depth, parameters, gmacs):
    network = resnet(depth)
    assert count_parameters(network) == parameters
    assert round(count_macs(network, 224) / 1e9, 3) == gmacs


RESNEXT_50 = {"depth": 50, "groups": 32, "width_per_group": 4}


# As torchvision's documentation has them.
@pytest.mark.parametrize(
    ("options", "parameters", "gmacs"),
    [
        (RESNEXT_50, 25_028_904, 4.23),
        ({"depth": 101, "groups": 32, "width_per_group": 8}, 88_791_336, 16.41),
        ({"depth": 50, "width_per_group": 128}, 68_883_240, 11.40),
    ],
)
def test_size_of_grouped_and_wide_networks_is_the_published_one(options, parameters, gmacs):
    network = resnet(**options)
    assert count_parameters(network) == parameters
    assert round(count_macs(network, 224) / 1e9, 2) == gmacs


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnext50_32x4d", RESNEXT_50),
        ("wide_resnet50_2", {"depth": 50, "width_per_group": 128}),
    ],
)
def test_grouped_and_wide_networks_equal_those_of_paddle_vision(name, options):
    ours = resnet(num_classes=10, **options)
    theirs = getattr(paddle.vision.models, name)(num_classes=10)
    give_drawn_weights(ours, theirs)
    x = paddle.to_tensor(images(64))
    with paddle.no_grad():
        logits = theirs(x).numpy()
        np.testing.assert_allclose(ours(x).numpy(), logits, rtol=0, atol=1e-4)
        use_backend(ours, "onednn" if onednn_problem() is None else "channels_last")
        np.testing.assert_allclose(ours(x).numpy(), logits, rtol=0, atol=1e-3)


SHAPE = {"width": [6, 4, 10], "strides": [2, 1, 2], "stem_width": 8}


@pytest.mark.parametrize(("block", "expansion"), [("basic", 1), ("bottleneck", 4)])
def test_each_stage_has_its_own_width_and_stride(block, expansion):
    network = resnet([1, 2, 1], 3, "cifar", block=block, **SHAPE)
    assert network.conv1.weight.shape == [8, 3, 3, 3]
    seen = {}
    for name in ("layer1", "layer2", "layer3"):
        stage = getattr(network, name)
        stage.register_forward_post_hook(lambda _, __, y, name=name: seen.update({name: y.shape}))
    network(noise(2, 3, 16, 12))
    assert seen == {
        "layer1": [2, 6 * expansion, 8, 6],
        "layer2": [2, 4 * expansion, 8, 6],
        "layer3": [2, 10 * expansion, 4, 3],
    }


def test_usual_shape_can_be_written_out():
    written = resnet(18, 4, width=[8, 16, 32, 64], strides=[1, 2, 2, 2], stem_width=8)
    usual = resnet(18, 4, width=8)
    shapes = [(name, list(value.shape)) for name, value in usual.state_dict().items()]
    assert [(name, list(value.shape)) for name, value in written.state_dict().items()] == shapes
    usual.set_state_dict(written.state_dict())
    x = noise(2, 3, 32, 32)
    np.testing.assert_array_equal(written(x).numpy(), usual(x).numpy())


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (1, 1)])
def test_average_shortcut_is_the_mean_of_2x2_pixels_then_a_projection(size):
    network = resnet([1, 1], 3, "cifar", "average", width=4)
    network.eval()
    assert type(network.layer1[0].downsample) is nn.Identity
    shortcut = network.layer2[0].downsample
    assert [type(layer) for layer in shortcut] == [nn.Conv2D, nn.BatchNorm2D]
    x = noise(2, 4, *size).numpy()
    rows, columns = (-(-side // 2) for side in size)
    mean = np.zeros((2, 4, rows, columns), "float32")
    for row in range(rows):
        for column in range(columns):
            pixels = x[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            mean[:, :, row, column] = pixels.mean((2, 3))
    weight = shortcut[0].weight.numpy()[:, :, 0, 0]
    expected = np.einsum("oc,nchw->nohw", weight, mean) / math.sqrt(1 + 1e-5)
    np.testing.assert_allclose(shortcut(paddle.to_tensor(x)).numpy(), expected, atol=1e-5)


def test_groups_need_bottlenecks():
    with pytest.raises(UserError, match=r"groups: needs bottleneck blocks; those of depth 18"):
        resnet(18, groups=2)


# He et al. 2015, table 6; the last one is given with one digit.
@pytest.mark.parametrize(
    ("depth", "millions"), [(20, "0.27"), (32, "0.46"), (44, "0.66"), (56, "0.85"), (110, "1.7")]
)
def test_size_of_the_papers_cifar_nets(depth, millions):
    network = resnet(depth, num_classes=10, stem="cifar3", shortcut="zero-pad")
    digits = len(millions) - 2
    assert f"{count_parameters(network) / 1e6:.{digits}f}" == millions
    assert count_parameters(plain(depth, num_classes=10, stem="cifar3")) == count_parameters(
        network
    )
    convolutions = [
        layer for layer in network.sublayers() if isinstance(layer, (nn.Conv2D, nn.Linear))
    ]
    assert len(convolutions) == depth


def test_the_net_for_cifar_keeps_small_images_large():
    network = resnet(18, num_classes=10, stem="cifar")
    assert count_parameters(network) == 11_173_962
    assert round(count_macs(network, 32) / 1e9, 2) == 0.56
    x = F.relu(network.bn1(network.conv1(noise(1, 3, 32, 32))))
    sizes = []
    for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
        x = stage(x)
        sizes.append(tuple(x.shape[1:]))
    assert sizes == [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)]


def test_counting_leaves_the_network_as_it_was():
    network = resnet([1], num_classes=2, stem="cifar", width=4)
    network.bn1.eval()
    before = {name: value.numpy() for name, value in network.state_dict().items()}
    first, second = count_macs(network, 8), count_macs(network, 8)
    # conv1, two of the block and fc, by hand.
    assert first == second == 64 * (3 * 4 * 9 + 2 * 4 * 4 * 9) + 4 * 2
    assert network.training
    assert network.layer1[0].bn1.training
    assert not network.bn1.training
    for name, value in network.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[name])


@pytest.mark.parametrize(
    ("depth", "options", "blocks", "convolutions"),
    [
        (20, {"stem": "cifar3"}, 3, 2),
        (20, {"stem": "cifar3", "block": "bottleneck"}, 2, 3),
        (29, {"stem": "cifar3"}, 3, 3),
        (8, {"stem": "cifar3"}, 1, 2),
        ([2, 2, 2, 2], {}, 2, 2),
        ([1], {}, 1, 2),
        ([1, 4, 1], {"block": "bottleneck"}, 4, 3),
    ],
)
def test_depth_gives_the_stages(depth, options, blocks, convolutions):
    network = resnet(depth, num_classes=2, width=4, **options)
    stages = [name for name, _ in network.named_children() if name.startswith("layer")]
    assert len(stages) == (len(depth) if isinstance(depth, list) else 3)
    middle = getattr(network, stages[len(stages) // 2])
    assert len(middle) == blocks
    assert hasattr(middle[0], "conv3") == (convolutions == 3)
    assert network(noise(2, 3, 80, 80)).shape == [2, 2]


def test_zero_pad_appends_zero_channels_to_every_second_pixel():
    x = np.arange(32, dtype="float32").reshape(1, 2, 4, 4)
    expected = np.zeros((1, 5, 2, 2), "float32")
    expected[0, 0] = [[0, 2], [8, 10]]
    expected[0, 1] = [[16, 18], [24, 26]]
    np.testing.assert_array_equal(ZeroPad(3, 2)(paddle.to_tensor(x)).numpy(), expected)


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
@pytest.mark.parametrize("pixels", [8, 7])
def test_zero_initialised_blocks_start_as_their_zero_pad_shortcut(block, pixels):
    network = resnet([1, 1], 2, "cifar", "zero-pad", block=block, zero_init_residual=True, width=4)
    channels = 4 if block == "basic" else 16
    x = noise(2, channels, pixels, pixels)
    expected = np.zeros((2, 2 * channels, (pixels + 1) // 2, (pixels + 1) // 2), "float32")
    expected[:, :channels] = np.maximum(x.numpy()[:, :, ::2, ::2], 0)
    np.testing.assert_array_equal(network.layer2(x).numpy(), expected)
    assert not [name for name in network.state_dict() if "downsample" in name]


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_plain_blocks_have_no_way_around(block):
    plain_net = plain([2, 2], 3, stem="cifar", width=4, block=block)
    residual = resnet([2, 2], 3, stem="cifar", width=4, block=block)
    x = noise(2, 3, 8, 8)
    for network in (plain_net, residual):
        last = network.layer2[1].bn2 if block == "basic" else network.layer2[1].bn3
        last.weight.set_value(paddle.zeros_like(last.weight))
    # The last block's branch is zero: without a shortcut nothing but fc's bias is left.
    bias = np.tile(plain_net.fc.bias.numpy(), (2, 1))
    np.testing.assert_array_equal(plain_net(x).numpy(), bias)
    assert np.abs(residual(x).numpy() - residual.fc.bias.numpy()).max() > 1e-3
    kept = {name for name in residual.state_dict() if "downsample" not in name}
    assert set(plain_net.state_dict()) == kept < set(residual.state_dict())


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (1, 1)])
def test_pool_has_the_stride_behind_the_first_3x3_convolution(size):
    basic = resnet([1, 1], 3, "cifar", stride_on="pool", width=4)
    bottleneck = resnet([1, 1], 3, "cifar", stride_on="pool", width=4, block="bottleneck")
    for network, pooled in ((basic, 1), (bottleneck, 2)):
        network.eval()
        block = network.layer2[0]
        convs = [getattr(block, f"conv{i}") for i in range(1, block.depth + 1)]
        assert [list(conv._stride) for conv in convs] == [[1, 1]] * block.depth
        x = noise(2, block.conv1.weight.shape[1], *size)
        y = x
        for i, conv in enumerate(convs, 1):
            y = conv(y)
            if i == pooled:
                y = F.max_pool2d(y, 3, 2, 1)
            y = getattr(block, f"bn{i}")(y)
            y = F.relu(y if i < block.depth else y + block.downsample(x))
        np.testing.assert_allclose(block(x).numpy(), y.numpy(), atol=1e-5)
        assert y.shape[2:] == [-(-side // 2) for side in size]
        assert network.layer1[0].pooled is None


@pytest.mark.parametrize(("stride_on", "sees_all"), [("3x3", True), ("1x1", False)])
def test_stride_on_the_first_convolution_skips_pixels(stride_on, sees_all):
    network = resnet(50, 2, stem="cifar", width=2, stride_on=stride_on)
    x = noise(1, 8, 8, 8)
    x.stop_gradient = False
    y = network.layer2(x)
    assert y.shape == [1, 16, 4, 4]
    (y * noise(1, 16, 4, 4)).sum().backward()
    reached = np.abs(x.grad.numpy()).sum(axis=(0, 1)) > 0
    assert reached[::2, ::2].all()
    assert reached[1::2, 1::2].all() == sees_all
    assert reached.all() == sees_all
    assert count_parameters(network) == count_parameters(resnet(50, 2, stem="cifar", width=2))


def test_projection_stands_only_where_shapes_differ():
    def projections(network):
        names = network.state_dict()
        return [name.removesuffix(".0.weight") for name in names if "downsample.0" in name]

    assert projections(resnet(18)) == [f"layer{i}.0.downsample" for i in (2, 3, 4)]
    assert projections(resnet(50)) == [f"layer{i}.0.downsample" for i in (1, 2, 3, 4)]


def test_initial_weights():
    paddle.seed(0)
    network = resnet(50, num_classes=1000, zero_init_residual=True)
    for name, weight in (
        ("stem", network.conv1.weight),
        ("3x3", network.layer3[0].conv2.weight),
        ("projection", network.layer4[0].downsample[0].weight),
    ):
        fan_out = weight.shape[0] * weight.shape[2] * weight.shape[3]
        deviation = math.sqrt(2 / fan_out)
        assert float(weight.std()) == pytest.approx(deviation, rel=0.05), name
        assert abs(float(weight.mean())) < 0.05 * deviation, name
    for values in (network.fc.weight.numpy(), network.fc.bias.numpy()):
        bound = 1 / math.sqrt(2048)
        assert np.abs(values).max() <= bound
        assert values.std() == pytest.approx(bound / math.sqrt(3), rel=0.1)
    for layer_name, layer in network.named_sublayers():
        if isinstance(layer, nn.BatchNorm2D):
            scale = 0.0 if layer_name.endswith(".bn3") else 1.0
            assert (layer.weight.numpy() == scale).all(), layer_name
            assert (layer.bias.numpy() == 0).all()
    assert (resnet([1], 2).layer1[0].bn2.weight.numpy() == 1).all()


def test_the_seed_decides_the_weights():
    def build(seed):
        paddle.seed(seed)
        return [
            value.numpy() for value in resnet([1, 1], 3, "cifar", width=4).state_dict().values()
        ]

    first, again, other = build(7), build(7), build(8)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert any((a != b).any() for a, b in zip(first, other, strict=True))


def test_one_line_changes_every_layer():
    def group_norm(channels, weight=1.0):
        return nn.GroupNorm(2, channels)

    network = resnet([1, 1], 3, "cifar", width=4, layers=Layers(norm=group_norm))
    kinds = [type(layer) for layer in network.sublayers()]
    assert nn.BatchNorm2D not in kinds
    assert kinds.count(nn.GroupNorm) == 1 + 2 + 2 + 1
    assert network(noise(2, 3, 8, 8)).shape == [2, 3]


def test_gray_images_and_other_widths():
    network = resnet(18, num_classes=4, stem="cifar", in_channels=1, width=8)
    assert network(noise(2, 1, 28, 28)).shape == [2, 4]
    assert network.fc.weight.shape == [64, 4]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 19}, "depth: 19 .* choose 18, 34, 50, 101 or 152, nearest 18"),
        ({"depth": 110}, "nearest 101.*stem 'cifar3'"),
        ({"depth": 55, "stem": "cifar3"}, r"6n\+2 \(basic.*9n\+2 \(bottleneck.*nearest 56"),
        ({"depth": 2, "stem": "cifar3"}, "nearest 8"),
        ({"depth": 44, "stem": "cifar3", "block": "bottleneck"}, "nearest 47"),
        ({"depth": "50"}, "depth: expected a depth such as 50, or a list .*, received '50'"),
        ({"depth": 50.0}, "depth: .* received 50.0"),
        ({"depth": True}, "depth: .* received True"),
        ({"depth": -18}, "depth: .* received -18"),
        ({"depth": []}, r"depth: .* received \[\]"),
        ({"depth": [2, 0]}, r"depth: .* received \[2, 0\]"),
        ({"depth": [2, "2"]}, r"received \[2, '2'\]"),
        (
            {"depth": 18, "stem": "imagnet"},
            "stem: .* Did you mean 'imagenet'\\? Valid: imagenet, cifar, cifar3",
        ),
        ({"depth": 18, "shortcut": "zeropad"}, "Did you mean 'zero-pad'"),
        (
            {"depth": 18, "shortcut": None},
            "shortcut: .* Valid: projection, average, zero-pad, none",
        ),
        ({"depth": 50, "stride_on": "3X3"}, "stride_on: .* Valid: 3x3, 1x1, pool"),
        ({"depth": 18, "stride_on": "1x1"}, "needs bottleneck blocks"),
        ({"depth": 18, "block": "bottleneck"}, r"stage sizes, \[2, 2, 2, 2\]"),
        ({"depth": 18, "block": "botleneck"}, "Did you mean 'bottleneck'"),
        ({"depth": 18, "num_classes": 0}, "num_classes: received 0, expected"),
        ({"depth": 18, "width": 0}, "width: expected a width such as 64, .*, received 0"),
        ({"depth": 18, "width": [8, 8]}, r"width: expected 4 values, .* received \[8, 8\]"),
        ({"depth": 18, "strides": [1, 2]}, r"strides: expected 4 values, .* received \[1, 2\]"),
        ({"depth": [1, 1], "strides": [1, 3]}, "strides.1: unknown value 3. Valid: 1, 2"),
        (
            {"depth": [1, 1], "shortcut": "zero-pad", "width": [8, 4]},
            r"shortcut: zero-pad cannot leave out channels, and they go \[8, 8, 4\]",
        ),
        ({"depth": 18, "in_channels": -1}, "in_channels: received -1"),
        ({"depth": 18, "shortcut": "none", "zero_init_residual": True}, "needs shortcuts"),
    ],
)
def test_what_does_not_exist_is_refused_in_one_line(options, message):
    with pytest.raises(UserError, match=message) as caught:
        resnet(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "backend",
    ["paddle", "channels_last", *([] if onednn_problem() else ["onednn"])],
)
@pytest.mark.parametrize("shape", [[2, 8, 8, 3], [3, 8, 8], [2, 1, 8, 8]])
@pytest.mark.parametrize("build", [resnet, densenet])
def test_batches_of_another_shape_are_refused(backend, shape, build):
    network = build([1], 2, "cifar")
    use_backend(network, backend)
    with pytest.raises(UserError, match=r"images: received .* expected \[N, 3, H, W\]"):
        network(paddle.zeros(shape))


@pytest.mark.filterwarnings("error")
def test_small_images_before_a_large_stem_are_told_once():
    def show(network, *sizes):
        network.eval()
        for pixels in sizes:
            network(noise(1, 3, pixels, pixels))

    with pytest.warns(UserWarning, match=r"64 px to 16 px .* stem='cifar'") as told:
        show(resnet([1], 2, width=4), 64, 32)
    assert len(told) == 1
    show(resnet([1], 2, width=4), 65)
    show(resnet([1], 2, "cifar", width=4), 8)
    check_image_size("cifar3", 8)
    with pytest.warns(UserWarning, match="32 px to 8 px"):
        check_image_size("imagenet", 32)


@pytest.mark.parametrize(("stem", "shortcut"), [("imagenet", "projection"), ("cifar", "zero-pad")])
def test_static_graph_gives_the_same_logits(stem, shortcut):
    options = {"num_classes": 3, "stem": stem, "shortcut": shortcut, "width": 4}
    network = resnet([1, 2], **options)
    give_drawn_weights(network)
    x = images(16)
    expected = network(paddle.to_tensor(x)).numpy()
    state = {name: value.numpy() for name, value in network.state_dict().items()}
    paddle.enable_static()
    try:
        main, startup = paddle.static.Program(), paddle.static.Program()
        with paddle.static.program_guard(main, startup):
            static = resnet([1, 2], **options)
            static.eval()
            logits = static(paddle.static.data("x", [None, 3, 16, 16], "float32"))
            executor = paddle.static.Executor(paddle.CPUPlace())
            executor.run(startup)
            static.set_state_dict(state)
            (result,) = executor.run(main, feed={"x": x}, fetch_list=[logits])
    finally:
        paddle.disable_static()
    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_macs_of_images_that_are_not_square():
    network = resnet([1], 10, "cifar", width=4)
    assert count_macs(network, (8, 16)) == count_macs(network, (16, 8))
    fc = 4 * 10
    assert count_macs(network, (8, 16)) - fc == 2 * (count_macs(network, 8) - fc)


def test_macs_of_a_convolution_of_channels_last():
    conv = nn.Conv2D(3, 4, 1, data_format="NHWC")

    class Turned(nn.Layer):
        def __init__(self):
            super().__init__()
            self.conv = conv

        def forward(self, images):
            return self.conv(images.transpose([0, 2, 3, 1]))

    assert count_macs(Turned(), (5, 7)) == 3 * 4 * 5 * 7


def test_a_group_without_a_channel_is_refused():
    with pytest.raises(UserError, match="width_per_group: 2 leaves no channel in the 3x3"):
        resnet(29, 10, "cifar3", groups=4, width_per_group=2)


def test_of_two_networks_of_one_depth_the_basic_one_is_built_unless_asked():
    assert Settings(depth=164, stem="cifar3").stages()[0] == "basic"
    block, sizes = Settings(depth=164, stem="cifar3", block="bottleneck").stages()
    assert (block, sizes) == ("bottleneck", (18, 18, 18))
