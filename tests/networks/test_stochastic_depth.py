"""Stochastic depth: branches left out by chance in training, and none in evaluation."""

import numpy as np
import paddle
import pytest

from resnet_fit import resnet
from resnet_fit.backends import use_backend
from resnet_fit.errors import UserError
from resnet_fit.networks.blocks import StochasticDepth


def test_a_branch_is_left_out_or_scaled_up_for_each_image():
    paddle.seed(0)
    layer = StochasticDepth(0.3)
    branch = paddle.ones([4000, 2, 3, 3])
    out = layer(branch).numpy()
    each = out[:, 0, 0, 0]
    np.testing.assert_array_equal(out, np.broadcast_to(each[:, None, None, None], out.shape))
    np.testing.assert_allclose(np.unique(each), [0, 1 / 0.7], rtol=1e-6)
    assert abs((each == 0).mean() - 0.3) < 0.03
    assert abs(out.mean() - 1) < 0.04  # in the mean over chance, the branch itself
    layer.eval()
    assert layer(branch) is branch


def test_later_blocks_are_left_out_more():
    network = resnet(18, stochastic_depth=0.4, stem="cifar")
    blocks = [block for stage in range(1, 5) for block in getattr(network, f"layer{stage}")]
    drops = [block.stochastic_depth.p for block in blocks]
    np.testing.assert_allclose(drops, 0.4 * np.arange(1, 9) / 8)
    assert all(block.stochastic_depth is None for block in resnet(18).layer1)


@pytest.mark.parametrize(
    ("backend", "dtype"),
    [
        ("paddle", "float32"),
        ("onednn", "float32"),
        pytest.param("onednn", "bfloat16", marks=pytest.mark.bfloat16),
    ],
)
def test_networks_have_it_in_training_alone(backend, dtype):
    paddle.seed(1)
    plain = resnet([1, 1], num_classes=5, stem="cifar", width=8)
    network = resnet([1, 1], num_classes=5, stem="cifar", width=8, stochastic_depth=0.5)
    network.set_state_dict(plain.state_dict())
    use_backend(plain, backend, dtype)
    use_backend(network, backend, dtype)
    images = paddle.to_tensor(np.random.default_rng(0).normal(size=(16, 3, 8, 8)).astype("float32"))
    plain.eval()
    network.eval()
    np.testing.assert_array_equal(network(images).numpy(), plain(images).numpy())
    network.train()
    paddle.seed(5)
    first = network(images)
    paddle.seed(5)
    np.testing.assert_array_equal(network(images).numpy(), first.numpy())
    paddle.seed(6)
    assert not np.array_equal(network(images).numpy(), first.numpy())
    first.sum().backward()
    assert all(p.grad is not None for p in network.parameters() if not p.stop_gradient)


def test_an_image_whose_blocks_are_all_left_out_takes_the_shortcuts():
    paddle.seed(0)
    network = resnet([2], num_classes=5, stem="cifar", width=8, stochastic_depth=0.99)
    for block in network.layer1:
        block.stochastic_depth.p = 1 - 1e-9
    images = paddle.to_tensor(np.random.default_rng(0).normal(size=(4, 3, 8, 8)).astype("float32"))
    stem = paddle.nn.functional.relu(network.bn1(network.conv1(images)))
    np.testing.assert_allclose(
        network(images).numpy(), network.fc(stem.mean([2, 3])).numpy(), atol=1e-5
    )


@pytest.mark.parametrize("options", [{"stochastic_depth": 1.0}, {"stochastic_depth": -0.1}])
def test_wrong_shares_are_refused(options):
    with pytest.raises(UserError, match="stochastic_depth: expected"):
        resnet(18, **options)
    with pytest.raises(UserError, match="shortcuts to leave blocks out around"):
        resnet(18, shortcut="none", stochastic_depth=0.1)
