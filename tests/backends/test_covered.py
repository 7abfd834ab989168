"""What a backend does not cover is computed by Paddle, as images that Paddle's layers expect."""

from __future__ import annotations

import copy
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import paddle
import pytest
from paddle import nn

from resnet_fit.backends import onednn_problem, use_backend
from resnet_fit.errors import UserError
from resnet_fit.networks import Layers, count_macs, densenet, resnet
from resnet_fit.networks.blocks import BasicBlock

BACKENDS = ["channels_last"] + ([] if onednn_problem() else ["onednn"])
needs_onednn = pytest.mark.skipif(bool(onednn_problem()), reason="no onednn backend here")
WIDTH = 6


class Doubled(nn.Conv2D):
    def forward(self, x):
        return 2 * super().forward(x)


class Shifted(nn.BatchNorm2D):
    def forward(self, x):
        return super().forward(x) + 1


class OwnBlock(BasicBlock):
    def forward(self, x):
        """Of images [N, C, H, W], as any layer of Paddle."""
        assert x.shape[1] == WIDTH
        return self.conv2(x)


def conv(kernel: Any = 3, **options: Any) -> nn.Layer:
    return nn.Conv2D(WIDTH, WIDTH, kernel, **({"padding": 1, "bias_attr": False} | options))


def forward_replaced(layer: nn.Layer) -> nn.Layer:
    forward = layer.forward
    layer.forward = types.MethodType(lambda self, x: forward(x) * 3, layer)
    return layer


def changed(layer: nn.Layer, **attributes: Any) -> nn.Layer:
    for name, value in attributes.items():
        setattr(layer, name, value)
    return layer


CONVOLUTIONS: dict[str, Callable[[], nn.Layer]] = {
    "bias": lambda: conv(bias_attr=None),
    "no padding": lambda: conv(padding=0),
    "other kernel": lambda: conv((5, 1), padding=[2, 0]),
    "other strides": lambda: conv(stride=[2, 1]),
    "other paddings": lambda: conv(padding=[2, 1], bias_attr=None),
    "four paddings": lambda: conv(padding=[0, 1, 2, 1]),
    "paddings of all axes": lambda: conv(padding=[[0, 0], [0, 0], [1, 2], [0, 1]]),
    "same": lambda: conv(padding="SAME", stride=2),
    "valid": lambda: conv(padding="valid"),
    "reflected": lambda: conv(padding_mode="reflect"),
    "circular": lambda: conv(padding_mode="circular", bias_attr=None),
    "dilation": lambda: conv(dilation=2, padding=2),
    "dilation set later": lambda: changed(conv(), _dilation=[2, 2], _updated_padding=[2, 2]),
    "groups": lambda: conv(groups=3, bias_attr=None),
    "depthwise": lambda: conv(groups=WIDTH),
    "subclass": lambda: Doubled(WIDTH, WIDTH, 3, padding=1),
    "weight norm": lambda: nn.utils.weight_norm(conv()),
    "forward replaced": lambda: forward_replaced(conv()),
    "several layers": lambda: nn.Sequential(conv(), nn.PReLU(), conv(1, padding=0)),
    "Identity": nn.Identity,
}
NORMS: dict[str, Callable[[], nn.Layer]] = {
    "GroupNorm": lambda: nn.GroupNorm(2, WIDTH),
    "InstanceNorm": lambda: nn.InstanceNorm2D(WIDTH),
    "no scale": lambda: nn.BatchNorm2D(WIDTH, weight_attr=False),
    "no shift": lambda: nn.BatchNorm2D(WIDTH, bias_attr=False),
    "neither": lambda: nn.BatchNorm2D(WIDTH, weight_attr=False, bias_attr=False),
    "older class": lambda: nn.BatchNorm(WIDTH),
    "no epsilon": lambda: nn.BatchNorm2D(WIDTH, epsilon=0.0),
    "momentum": lambda: nn.BatchNorm2D(WIDTH, momentum=0.3),
    "running statistics": lambda: nn.BatchNorm2D(WIDTH, use_global_stats=True),
    "always the batch's": lambda: nn.BatchNorm2D(WIDTH, use_global_stats=False),
    "subclass": lambda: Shifted(WIDTH),
    "Identity": nn.Identity,
}


def set_child(path: str, layer: nn.Layer) -> Callable[[nn.Layer], None]:
    parent, _, name = path.rpartition(".")

    def change(network: nn.Layer) -> None:
        owner = dict(network.named_sublayers(include_self=True))[parent]
        owner.add_sublayer(name, layer)

    return change


PARTS: dict[str, tuple[str, Callable[[], nn.Layer]]] = {
    "first convolution": ("conv1", lambda: nn.Conv2D(3, WIDTH, 3, padding=1)),
    "block": ("layer1.0", lambda: nn.Sequential(conv(bias_attr=None), nn.Sigmoid())),
    "block's subclass": ("layer1.0", lambda: OwnBlock(WIDTH, WIDTH, 1, None, Layers())),
    "stage": ("layer2", lambda: nn.Sequential(nn.Conv2D(WIDTH, 2 * WIDTH, 3, 2, 1), nn.Tanh())),
    "shortcut": ("layer2.0.downsample", lambda: nn.Conv2D(WIDTH, 2 * WIDTH, 1, 2)),
}


def images(*shape: int) -> paddle.Tensor:
    return paddle.to_tensor(np.random.default_rng(0).normal(size=shape).astype("float32"))


def step(network: nn.Layer, training: bool) -> dict[str, np.ndarray]:
    """The logits, the gradients of images and parameters, and the running statistics."""
    network.train() if training else network.eval()
    x = images(4, 3, 9, 8)
    x.stop_gradient = False
    logits = network(x)
    (logits * images(*logits.shape)).sum().backward()
    results = {"logits": logits, "images": x.grad}
    for name, parameter in network.named_parameters():
        results[name] = parameter if parameter.stop_gradient else parameter.grad
    # Paddle gives no gradient to a norm's scale without a shift.
    return {name: value.numpy() for name, value in results.items() if value is not None}


def assert_equal_steps(network: nn.Layer, backend: str, training: bool) -> None:
    state = {name: value.clone() for name, value in network.state_dict().items()}
    expected = step(network, training)
    network.clear_gradients()
    network.set_state_dict(state)
    use_backend(network, backend)
    ours = step(network, training)
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        tolerance = 1e-5 * max(1, np.abs(value).max())
        np.testing.assert_allclose(ours[name], value, rtol=1e-3, atol=tolerance, err_msg=name)


def build(place: str, layer: nn.Layer) -> nn.Layer:
    network = resnet([1, 1], 5, "cifar", width=WIDTH)
    set_child(place, layer)(network)
    return network


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_convolutions(kind, backend):
    paddle.seed(0)
    network = resnet([1, 1], 5, "cifar", width=WIDTH, shortcut="none")
    set_child("layer1.0.conv2", CONVOLUTIONS[kind]())(network)
    assert_equal_steps(network, backend, True)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("place", ["bn1", "layer1.0.bn2"])  # with a ReLU, and without
@pytest.mark.parametrize("kind", NORMS)
def test_norms(kind, place, training, backend):
    paddle.seed(0)
    assert_equal_steps(build(place, NORMS[kind]()), backend, training)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", PARTS)
def test_parts(kind, backend):
    paddle.seed(0)
    place, make = PARTS[kind]
    assert_equal_steps(build(place, make()), backend, True)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_part_that_is_replaced_or_has_another_engine(backend):
    paddle.seed(0)
    network = resnet([1, 1], 5, "cifar", width=WIDTH)
    blocks = [BasicBlock(WIDTH, WIDTH, 1, nn.Identity(), Layers()) for _ in range(2)]
    set_child("layer1.0", blocks[0])(network)
    x = images(4, 3, 9, 8)
    expected = network(x).numpy()
    use_backend(network, backend)
    blocks[1].set_state_dict(blocks[0].state_dict())
    set_child("layer1.0", blocks[1])(network)  # computes by the paddle backend
    use_backend(network.layer2[0].downsample, "paddle")
    np.testing.assert_allclose(network(x).numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_single_value_per_channel_is_not_normalised(backend):
    paddle.seed(0)
    network = resnet([1], 5, "cifar", width=WIDTH)
    x = images(1, 3, 1, 1)
    expected = network(x).numpy()
    use_backend(network, backend)
    np.testing.assert_allclose(network(x).numpy(), expected, rtol=1e-5)
    np.testing.assert_array_equal(network.bn1._variance.numpy(), 1)


@needs_onednn
@pytest.mark.parametrize("place", ["conv1", "bn1", "layer1"])
def test_parameters_of_other_types_are_refused_in_one_line(place):
    network = resnet([1], 5, "cifar", width=WIDTH)
    use_backend(network, "onednn")
    getattr(network, place).to(dtype="float64")
    message = "the onednn backend computes with parameters of float32, but .* is float64; use"
    with pytest.raises(UserError, match=message):
        network(images(2, 3, 8, 8))


def test_channels_last_computes_in_float64():
    network = resnet([1], 5, "cifar", width=WIDTH)
    network.to(dtype="float64")
    x = images(2, 3, 8, 8).astype("float64")
    expected = network(x).numpy()
    use_backend(network, "channels_last")
    np.testing.assert_allclose(network(x).numpy(), expected, rtol=1e-12)


def watch(network: nn.Layer) -> dict[str, list[Any]]:
    """What hooks before and behind every layer see."""
    seen: dict[str, list[Any]] = {}
    for name, layer in network.named_sublayers():
        seen[name] = []
        layer.register_forward_pre_hook(
            lambda layer, inputs, name=name: seen[name].append(inputs[0].numpy())
        )
        layer.register_forward_post_hook(
            lambda layer, inputs, output, name=name: seen[name].append(output.numpy())
        )
    return seen


NETWORKS = {
    "bottleneck": lambda: resnet([1, 1], 5, "imagenet", width=WIDTH, block="bottleneck"),
    "shaped": lambda: resnet(
        [1, 1], 5, "cifar", "average", "pool", width=[WIDTH, 5], strides=[2, 1], stem_width=3
    ),
    "zero-pad": lambda: resnet([2, 1], 5, "cifar3", shortcut="zero-pad", stochastic_depth=0.1),
    "dense": lambda: densenet([1, 2], 5, "imagenet", growth=WIDTH),
}


@pytest.mark.filterwarnings("ignore:stem='imagenet'")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", NETWORKS)
def test_hooks_see_what_they_see_in_paddle(kind, backend):
    """All layers, with images [N, C, H, W], and called once for each use."""
    network = NETWORKS[kind]()
    network.eval()
    other = copy.deepcopy(network)
    use_backend(other, backend)
    expected, seen = watch(network), watch(other)
    network(images(2, 3, 16, 20))
    other(images(2, 3, 16, 20))
    assert seen.keys() == expected.keys()
    for name, values in expected.items():
        assert [v.shape for v in seen[name]] == [v.shape for v in values], name
        for ours, theirs in zip(seen[name], values, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_hook_changes_the_output_until_it_is_removed(backend):
    network = resnet([1], 5, "cifar", width=WIDTH)
    network.eval()
    use_backend(network, backend)
    x = images(2, 3, 8, 8)
    before = network(x).numpy()
    for layer in (network.conv1, network.bn1, network.layer1):
        hook = layer.register_forward_post_hook(lambda layer, inputs, output: 0 * output)
        assert np.abs(network(x).numpy() - before).max() > 1e-3
        hook.remove()
        np.testing.assert_array_equal(network(x).numpy(), before)


@pytest.mark.parametrize("backend", BACKENDS)
def test_parts_called_by_hand_take_images_of_paddle(backend):
    network = densenet([1, 1], 5, "cifar", growth=WIDTH)
    network.eval()
    x = images(2, 3, 8, 8)

    def by_hand() -> np.ndarray:
        y = network.db_conv_2(network.conv1_func(x))
        y = network.db_conv_3(network.tr_conv2_blk(y))
        assert list(y.shape) == [2, 2 * WIDTH + 1 * WIDTH - WIDTH // 2, 4, 4]
        return y.numpy()

    expected = by_hand()
    use_backend(network, backend)
    np.testing.assert_allclose(by_hand(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_summaries_count_every_parameter(backend, capsys):
    network = resnet(8, 5, "cifar3")
    expected = paddle.summary(network, (1, 3, 32, 32)), count_macs(network, 32)
    printed = capsys.readouterr().out
    use_backend(network, backend)
    assert (paddle.summary(network, (1, 3, 32, 32)), count_macs(network, 32)) == expected
    assert capsys.readouterr().out == printed
    model = paddle.Model(network, paddle.static.InputSpec([None, 3, 32, 32], name="images"))
    assert model.summary() == expected[0]


@pytest.mark.bfloat16
@needs_onednn
def test_layers_of_paddle_between_layers_in_bfloat16():
    paddle.seed(0)
    network = build("layer1.0.bn1", nn.GroupNorm(2, WIDTH))
    set_child("layer1.0.conv2", conv(bias_attr=None, groups=3))(network)
    set_child("layer2.0.conv1", nn.Conv2D(WIDTH, 2 * WIDTH, 3, 2, 1))(network)
    expected = step(network, training=False)
    network.clear_gradients()
    use_backend(network, "onednn", "bfloat16")
    for name, value in step(network, training=False).items():
        error = np.linalg.norm(value - expected[name])
        assert error <= 0.2 * np.linalg.norm(expected[name]), name
    assert network.layer2[0].conv1.bias.grad.dtype == paddle.float32
