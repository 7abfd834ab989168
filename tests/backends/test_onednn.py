"""The onednn backend computes what Paddle's own operations do: values, gradients and buffers."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from ctypes import c_float, c_uint
from functools import partial

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paddle import nn

from resnet_fit.backends import onednn_problem, plain, use_backend
from resnet_fit.errors import UserError
from resnet_fit.networks import densenet, resnet

if onednn_problem():
    pytest.skip(f"no onednn backend here: {onednn_problem()}", allow_module_level=True)

from resnet_fit.backends.onednn import dnnl
from resnet_fit.backends.onednn.operations import OneDNN
from resnet_fit.backends.threads import computing_with

RNG = np.random.default_rng(0)


def noise(*shape):
    return RNG.normal(size=shape).astype("float32")


def run(ops, operation, images, layer=None, weights=None):
    """Output, its gradients for images and parameters, through ``enter`` and back to NCHW."""
    x = paddle.to_tensor(images, stop_gradient=False)
    y = operation(ops, ops.enter(x))
    y = y.astype("float32")
    if isinstance(ops, OneDNN):
        y = y.transpose([0, 3, 1, 2])
    rng = np.random.default_rng(1)
    (y * paddle.to_tensor(rng.normal(size=y.shape).astype("float32"))).sum().backward()
    gradients = [x.grad] + [p.grad for p in (layer.parameters() if layer else []) if p.trainable]
    return [y.numpy()] + [g.numpy() for g in gradients if g is not None]


def assert_same(operation, images, layer=None, tolerance=2e-5):
    other = copy.deepcopy(layer)
    expected = run(plain, lambda ops, x: operation(ops, layer, x), images, layer)
    ours = run(OneDNN(), lambda ops, x: operation(ops, other, x), images, other)
    assert len(ours) == len(expected)
    for a, b in zip(ours, expected, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, atol=tolerance * max(1, np.abs(b).max()), rtol=1e-4)
    return layer, other


@pytest.mark.parametrize("channels", [(3, 16), (16, 8), (1, 4), (64, 64)])
@pytest.mark.parametrize("geometry", [(1, 1), (1, 2), (3, 1), (3, 2), (7, 2)])
def test_convolution(channels, geometry):
    kernel, stride = geometry
    conv = nn.Conv2D(*channels, kernel, stride, kernel // 2, bias_attr=False)
    assert_same(lambda ops, layer, x: ops.convolve(layer, x), noise(3, channels[0], 9, 12), conv)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    channels=st.tuples(*[st.integers(1, 9) | st.integers(1, 70)] * 2),
    size=st.tuples(*map(st.sampled_from, [(30, 7), (8, 5, 17), (9, 6, 16)])),
    kernel=st.sampled_from([1, 1, 3, 5, (1, 3), (4, 2)]),
    stride=st.sampled_from([1, 2, 3, (1, 2), (2, 1)]),
    padding=st.sampled_from([0, 1, 2, (0, 1)]),
    bias=st.booleans(),
)
def test_convolution_of_any_geometry(channels, size, kernel, stride, padding, bias):
    """In many draws, channels are few and a stride leaves out pixels of a 1x1 convolution."""
    conv = nn.Conv2D(*channels, kernel, stride, padding, bias_attr=None if bias else False)
    images = noise(size[0], channels[0], *size[1:])
    with computing_with(2):
        assert_same(lambda ops, layer, x: ops.convolve(layer, x), images, conv)


@pytest.mark.parametrize("stride", [2, (1, 3)])
@pytest.mark.parametrize("channels", range(1, 17))
def test_strided_1x1_convolution_of_few_channels(channels, stride):
    """oneDNN's first choice has threads that overwrite each other's memory."""
    images = noise(30, channels, 8, 8)
    with computing_with(2):
        for _ in range(5):
            conv = nn.Conv2D(channels, 8, 1, stride, bias_attr=False)
            assert_same(lambda ops, layer, x: ops.convolve(layer, x), images, conv)


@pytest.mark.bfloat16
@pytest.mark.parametrize("channels", range(1, 17))
def test_strided_1x1_convolution_of_few_channels_in_bfloat16(channels):
    images = noise(7, channels, 64, 64)
    with computing_with(2):
        for _ in range(5):
            conv = nn.Conv2D(channels, 8, 1, 2, bias_attr=False)
            layers = {plain: conv, OneDNN("bfloat16"): copy.deepcopy(conv)}
            exact, rounded = (
                run(ops, lambda ops, x, layer=layer: ops.convolve(layer, x), images, layer)
                for ops, layer in layers.items()
            )
            for one, other in zip(rounded, exact, strict=True):
                np.testing.assert_allclose(one, other, atol=0.03 * np.abs(other).max())


@pytest.mark.parametrize("channels", [16, 12, 3])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("relu", [True, False])
def test_normalization_and_its_running_statistics(relu, training, channels):
    norm = nn.BatchNorm2D(channels)
    for parameter in (*norm.parameters(),):
        parameter.set_value(np.abs(noise(channels)) + 0.5)
    norm.training = training
    layers = assert_same(
        lambda ops, layer, x: ops.normalize(layer, x, relu=relu), noise(4, channels, 5, 6) + 1, norm
    )
    for name in ("_mean", "_variance"):
        ours, theirs = (getattr(layer, name).numpy() for layer in reversed(layers))
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.bfloat16
@pytest.mark.parametrize("channels", [8, 16, 64])
def test_normalization_in_bfloat16_and_its_gradients(channels):
    """The passes forward and backward agree on which outputs the ReLU let pass."""
    norm = nn.BatchNorm2D(channels)
    images = paddle.to_tensor(noise(4, channels, 5, 6)).astype("bfloat16").astype("float32").numpy()

    def operation(ops, x):
        return ops.normalize(norm, x, relu=True)

    rounded = run(OneDNN("bfloat16"), operation, images, norm)
    norm.clear_gradients()
    for ours, exact in zip(rounded, run(plain, operation, images, norm), strict=True):
        assert np.linalg.norm(ours - exact) < 0.02 * np.linalg.norm(exact)


def test_channels_that_a_convolution_does_not_have_are_no_padding():
    operations = OneDNN()
    with pytest.raises(ValueError, match="a convolution of 3 channels received 8"):
        operations.convolve(paddle.nn.Conv2D(3, 4, 3), operations.enter(paddle.zeros([1, 8, 9, 9])))


def test_a_batch_without_images_is_refused_in_one_line():
    network = resnet([1, 1], 5, stem="cifar", width=4)
    use_backend(network, "onednn")
    with pytest.raises(UserError, match=r"images: received \[0, 3, 8, 8\], expected one image"):
        network(paddle.zeros([0, 3, 8, 8]))


def test_an_implementation_is_preferred_where_there_is_one():
    images = dnnl.channels_last((4, 16, 8, 8), dnnl.FLOAT32)
    settings = (images, images, c_float(1e-5), c_uint(dnnl.USE_SCALE | dnnl.USE_SHIFT))

    def norm(prefer):
        return dnnl.Description(
            "batch_normalization_forward",
            *(dnnl.FORWARD_TRAINING, *settings, dnnl.PLAIN),
            prefer=prefer,
        ).implementation

    first = norm(None)
    assert first
    assert norm(lambda name: name.startswith("ref")).startswith("ref")
    assert norm(lambda name: False) == first


def test_running_statistics_do_move():
    norm = nn.BatchNorm2D(4)
    ops = OneDNN()
    ops.normalize(norm, ops.enter(paddle.to_tensor(noise(8, 4, 5, 5) * 3 + 2)))
    assert np.abs(norm._mean.numpy()).min() > 0.05
    assert np.abs(norm._variance.numpy() - 1).min() > 0.05


def test_sum_through_a_relu_of_a_fork():
    def operation(ops, layer, x):
        a, b = ops.fork(x)
        return ops.add(ops.convolve(layer, a), b)

    assert_same(operation, noise(2, 8, 6, 6), nn.Conv2D(8, 8, 3, padding=1, bias_attr=False))


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (1, 1)])
def test_max_pool(size):
    assert_same(lambda ops, layer, x: ops.max_pool(x), noise(2, 8, *size))


@pytest.mark.parametrize("ceil", [False, True])
@pytest.mark.parametrize("channels", [8, 6])
@pytest.mark.parametrize("size", [(8, 8), (7, 9), (2, 2), (1, 1), (1, 4), (3, 1)])
def test_average_pool(size, channels, ceil):
    assert_same(lambda ops, layer, x: ops.average_pool(x, ceil), noise(2, channels, *size))


@pytest.mark.bfloat16
@pytest.mark.parametrize("size", [(8, 8), (7, 9), (1, 1)])
@pytest.mark.parametrize("pool", ["max_pool", "average_pool"])
def test_pools_in_bfloat16_and_their_gradients(size, pool):
    def operation(ops, x):
        return ops.max_pool(x) if pool == "max_pool" else ops.average_pool(x, ceil=True)

    images = paddle.to_tensor(noise(2, 8, *size)).astype("bfloat16").astype("float32").numpy()
    rounded, exact = (run(ops, operation, images) for ops in (OneDNN("bfloat16"), plain))
    for ours, theirs in zip(rounded, exact, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0.02, atol=0.02)


def two_branches(first, second):
    return nn.Sequential(
        *(nn.Conv2D(4, channels, 3, padding=1, bias_attr=False) for channels in (first, second))
    )


@pytest.mark.parametrize("channels", [(24, 12), (16, 16), (36, 12), (3, 4), (1, 1)])
def test_concat(channels):
    def operation(ops, layers, x):
        return ops.concat(*(ops.convolve(layer, x) for layer in layers))

    assert_same(operation, noise(2, 4, 5, 6), two_branches(*channels))


def test_concat_of_bfloat16_moves_numbers_and_changes_none():
    ops = OneDNN("bfloat16")
    parts = [ops.enter(paddle.to_tensor(noise(2, c, 3, 4))) for c in (7, 12, 5)]
    x = ops.concat(ops.concat(parts[0], parts[1]), parts[2])
    expected = paddle.concat([part.astype("float32") for part in parts], -1)
    np.testing.assert_array_equal(x.astype("float32").numpy(), expected.numpy())


# What `concat` makes has its channels padded to a multiple of 16: each operation minds that.
AFTER_CONCAT = {
    "convolve": lambda ops, layer, x: ops.convolve(layer, x),
    "add": lambda ops, layer, x: ops.add(x, x),
    "add to a plain one": lambda ops, layer, x: ops.add(ops.convolve(layer, x), x),
    "add a plain one": lambda ops, layer, x: ops.add(x, ops.convolve(layer, x)),
    "fork": lambda ops, layer, x: ops.add(*ops.fork(x)),
    "max_pool": lambda ops, layer, x: ops.max_pool(x),
    "average_pool": lambda ops, layer, x: ops.average_pool(x),
    "average_pool of all": lambda ops, layer, x: ops.average_pool(x, ceil=True),
    "zero_pad": lambda ops, layer, x: ops.zero_pad(x, 5, 1),
    "zero_pad with a stride": lambda ops, layer, x: ops.zero_pad(x, 5, 2),
    "concat": lambda ops, layer, x: ops.concat(x, x),
    "concat behind": lambda ops, layer, x: ops.concat(ops.convolve(layer, x), x),
}


@pytest.mark.parametrize("size", [(6, 7), (1, 1), (5, 1), (1, 5)])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", AFTER_CONCAT)
def test_operations_after_a_concat(name, batch, size):
    def operation(ops, layers, x):
        x = ops.concat(ops.convolve(layers[0], x), ops.convolve(layers[1], x))
        return AFTER_CONCAT[name](ops, layers[2], x)

    layers = nn.Sequential(*two_branches(6, 7), nn.Conv2D(13, 13, 1, bias_attr=False))
    assert_same(operation, noise(batch, 4, *size), layers)


@pytest.mark.parametrize("channels", [slice(3), slice(5, 13), slice(1, 12)])
def test_some_channels_of_a_padded_pixel(channels):
    """They do not end where the padding does."""

    def operation(ops, layers, x):
        x = ops.concat(ops.convolve(layers[0], x), ops.convolve(layers[1], x))
        x = x[..., channels] if isinstance(ops, OneDNN) else x[:, channels]
        return ops.add(ops.convolve(layers[2], x), x)

    width = len(range(13)[channels])
    layers = nn.Sequential(*two_branches(6, 7), nn.Conv2D(width, width, 1, bias_attr=False))
    assert_same(operation, noise(2, 4, 6, 7), layers)


def test_images_of_other_layouts():
    """As Paddle's own operations leave them between two of the backend's."""
    ops, x, conv = OneDNN(), noise(2, 4, 6, 7), nn.Conv2D(4, 4, 3, padding=1)
    images = (
        paddle.to_tensor(x.transpose([0, 2, 3, 1])),
        paddle.to_tensor(x).transpose([0, 2, 3, 1]),
    )
    for operation in (partial(ops.convolve, conv), ops.max_pool, lambda x: ops.add(x, x)):
        plain, transposed = (operation(each).numpy() for each in images)
        np.testing.assert_array_equal(plain, transposed)


def test_shapes_that_do_not_fit_are_left_to_paddle():
    ops = OneDNN()
    x, pixel, other = (paddle.to_tensor(noise(2, *s)) for s in ((4, 4, 3), (1, 1, 3), (4, 5, 3)))
    np.testing.assert_array_equal(ops.add(x, pixel), paddle.nn.functional.relu(x + pixel))
    with pytest.raises(ValueError, match=r"[Bb]roadcast"):
        ops.add(x, other)
    with pytest.raises(ValueError, match="concat"):
        ops.concat(x, other)


def test_mean_after_a_concat():
    x = noise(2, 6, 3, 4)
    for ops in (plain, OneDNN()):
        entered = ops.enter(paddle.to_tensor(x))
        means = ops.mean(ops.concat(entered, entered)).numpy()
        np.testing.assert_allclose(means, np.tile(x.mean(axis=(2, 3)), 2), atol=1e-6)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("growth", [12, 16])
def test_dense_layers(growth, training):
    """Three in a row, with a second use of every channel and all running statistics."""
    block = densenet([3], num_classes=2, stem="cifar", growth=growth).db_conv_2
    other = copy.deepcopy(block)
    for layers in (block, other):
        layers.train() if training else layers.eval()
    use_backend(other, "onednn")
    images = noise(4, 2 * growth, 6, 6)
    expected = run(plain, lambda ops, x: block.compute(x), images, block)
    ours = run(OneDNN(), lambda ops, x: other.compute(x), images, other)
    for a, b in zip(ours, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4 * max(1, np.abs(b).max()), rtol=1e-3)
    for a, b in zip(other.state_dict().values(), block.state_dict().values(), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(8, 8), (7, 5)])
def test_zero_pad(size, stride):
    assert_same(lambda ops, layer, x: ops.zero_pad(x, 8, stride), noise(2, 8, *size))


NETWORKS = {
    "18": partial(resnet, 18, stem="cifar", width=16),
    "bottleneck": partial(resnet, [1, 1, 1], block="bottleneck", width=8),
    "zero-pad": partial(resnet, 20, stem="cifar3", shortcut="zero-pad"),
    "plain": partial(resnet, 20, stem="cifar3", shortcut="none"),
    "dense": partial(densenet, 40, stem="cifar", growth=4),
    "pools": partial(
        resnet, [1, 1, 1], stem="cifar", shortcut="average", stride_on="pool", strides=[2, 2, 2]
    ),
}


def train(network, steps, rate=3e-4):
    """Losses of a loop written by hand, on noise whose labels can be learnt."""
    rng = np.random.default_rng(2)
    optimizer = paddle.optimizer.Momentum(rate, 0.9, network.parameters(), use_nesterov=True)
    losses = []
    for _ in range(steps):
        labels = rng.integers(0, 10, 32)
        images = rng.normal(size=(32, 3, 32, 32)) + labels[:, None, None, None] / 5
        logits = network(paddle.to_tensor(images.astype("float32")))
        loss = nn.functional.cross_entropy(logits, paddle.to_tensor(labels))
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        losses.append(float(loss))
    return np.array(losses)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name == "18" else pytest.mark.slow) for name in NETWORKS],
)
def test_twenty_steps_end_in_the_same_network(name):
    """Losses, weights, buffers and evaluation: as near as rounding lets two trainings be.

    Training amplifies rounding, so the measure is Paddle against itself, started with weights that
    differ in their last bit.
    """
    paddle.seed(0)
    exact, nudged, fast = (NETWORKS[name](num_classes=10) for _ in range(3))
    state = exact.state_dict()
    fast.set_state_dict(state)
    nudged.set_state_dict({k: v * (1 + 1e-7) if v.ndim > 1 else v for k, v in state.items()})
    use_backend(fast, "onednn")
    images = paddle.to_tensor(noise(16, 3, 32, 32))
    results = []
    for network in (exact, nudged, fast):
        results.append({"losses": train(network, 20)})
        results[-1] |= {k: v.numpy() for k, v in network.state_dict().items()}
        network.eval()
        results[-1]["logits"] = network(images).numpy()
    far = {"own": [], "ours": []}
    for key, right in results[0].items():
        for which, result in (("own", results[1]), ("ours", results[2])):
            far[which].append(np.linalg.norm(result[key] - right) / np.linalg.norm(right))
    assert np.median(far["ours"]) < 1e-3
    assert np.median(far["ours"]) < 5 * np.median(far["own"])
    assert max(far["ours"]) < 5 * max(far["own"])


@pytest.mark.bfloat16
@pytest.mark.parametrize("pixels", [28, 32])
@pytest.mark.parametrize("name", NETWORKS)
def test_bfloat16_stays_near_float32_and_keeps_parameters_exact(name, pixels):
    """Also where stages of 7 pixels have an odd side."""
    network = NETWORKS[name](num_classes=10)
    images = paddle.to_tensor(noise(8, 3, pixels, pixels))
    network.eval()
    exact = network(images).numpy()
    use_backend(network, "onednn", "bfloat16")
    rough = network(images).numpy()
    assert 0 < np.abs(rough - exact).max() < 0.05 * np.abs(exact).max()
    network.train()
    network(images).sum().backward()
    for parameter in network.parameters():
        assert parameter.dtype == paddle.float32
        if not parameter.stop_gradient:
            assert parameter.grad.dtype == paddle.float32


def test_frozen_parameters_get_no_gradient_and_pass_it_on():
    network = resnet([1, 1], 10, "cifar", width=8)
    use_backend(network, "onednn")
    for parameter in network.layer2.parameters():
        parameter.stop_gradient = True
    network(paddle.to_tensor(noise(4, 3, 8, 8))).sum().backward()
    assert all(p.grad is None for p in network.layer2.parameters())
    assert np.abs(network.conv1.weight.grad.numpy()).max() > 0


def test_frozen_channels_of_a_concat_get_no_gradient():
    network = densenet([2, 1], 10, "cifar", growth=4)
    use_backend(network, "onednn")
    frozen = [*network.conv1_func.parameters(), *network.db_conv_2[0].parameters()]
    for parameter in frozen:
        parameter.stop_gradient = True
    network(paddle.to_tensor(noise(4, 3, 8, 8))).sum().backward()
    assert all(p.grad is None for p in frozen)
    behind = network.db_conv_2[1].bn_ac_func1._conv.weight
    assert np.abs(behind.grad.numpy()).max() > 0


@pytest.mark.parametrize("build", [partial(resnet, [1, 1]), partial(densenet, [2, 1])])
def test_the_same_twice_to_the_last_bit(build):
    losses = []
    for _ in range(2):
        paddle.seed(3)
        network = build(10, "cifar")
        use_backend(network, "onednn")
        losses.append(train(network, 3))
    assert np.array_equal(*losses)


@pytest.mark.parametrize("build", [partial(resnet, width=8), partial(densenet, growth=3)])
def test_batches_of_changing_size(build):
    network = build([1, 1], 10, "cifar")
    network.eval()
    images = noise(5, 3, 8, 8)
    expected = network(paddle.to_tensor(images)).numpy()
    use_backend(network, "onednn")
    for n in (5, 1, 3):
        ours = network(paddle.to_tensor(images[:n])).numpy()
        np.testing.assert_allclose(ours, expected[:n], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("instructions", ["AVX2", "AVX", "SSE41"])
def test_all_of_it_as_older_processors_compute(instructions):
    """oneDNN has other code for each: what passes on one may be wrong on another."""
    pytest_ = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider"]
    found = subprocess.run(
        [*pytest_, "-m", "not slow and not bfloat16", __file__],
        env=os.environ | {"ONEDNN_MAX_CPU_ISA": instructions},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout[-4000:]
