"""A whitened first convolution."""

import numpy as np
import paddle
import pytest
from paddle import nn

from resnet_fit import fit, open_run, parse_config, resnet, resume
from resnet_fit.errors import UserError
from resnet_fit.networks import count_parameters, whiten
from resnet_fit.networks.whitening import EPSILON, whitening_filters


@pytest.fixture(scope="module")
def images():
    """Neighbouring pixels and channels are alike, as in photographs; ``[N, C, H, W]``."""
    noise = np.random.default_rng(0).normal(size=(40, 3, 24, 20))
    smooth = noise + np.roll(noise, 1, 2) + np.roll(noise, 1, 3) + noise.mean(1, keepdims=True)
    return (smooth * np.array([1.0, 2.0, 0.5])[:, None, None] + 3).astype("float32")


def outputs(layer, images):
    y = layer(paddle.to_tensor(images)).numpy()
    return y[:, :, 1:-1, 1:-1].transpose(1, 0, 2, 3).reshape(y.shape[1], -1)  # no padding seen


def test_outputs_are_uncorrelated_and_have_variance_one(images):
    layer = nn.Conv2D(3, 54, 3, padding=1, bias_attr=False)
    whiten(layer, images)
    covariance = np.cov(outputs(layer, images)[:27])
    np.testing.assert_allclose(covariance, np.eye(27), atol=0.02)  # EPSILON shrinks the last ones


def test_second_half_is_the_first_with_the_opposite_sign_and_the_rest_stays(images):
    layer = nn.Conv2D(3, 60, 3, padding=1, bias_attr=False)
    before = layer.weight.numpy().copy()
    whiten(layer, images)
    weight = layer.weight.numpy()
    np.testing.assert_array_equal(weight[27:54], -weight[:27])
    np.testing.assert_array_equal(weight[54:], before[54:])
    assert layer.weight.stop_gradient


def test_few_filters_are_those_that_see_most(images):
    few, all_of_them = nn.Conv2D(3, 8, 3, bias_attr=False), nn.Conv2D(3, 54, 3, bias_attr=False)
    whiten(few, images)
    whiten(all_of_them, images)
    weight = all_of_them.weight.numpy()
    np.testing.assert_array_equal(few.weight.numpy()[:4], weight[:4])
    length = np.linalg.norm(weight[:27].reshape(27, -1), axis=1)
    assert (np.diff(length) >= 0).all()  # the larger a variance, the smaller its filter


@pytest.mark.parametrize("shape", [(5, 1, 8, 8), (5, 3, 2, 8), (5, 3, 8)])
def test_images_that_do_not_fit_are_refused(shape):
    layer = nn.Conv2D(3, 8, 3, bias_attr=False)
    with pytest.raises(UserError, match=r"images: received .*, expected \[N, 3, 3 or more"):
        whiten(layer, np.zeros(shape, "float32"))


CONFIG = {
    "model": {"depth": [1], "stem": "cifar", "width": 8, "whiten": True},
    "data": {"name": "digits", "limit": 200, "batch_size": 50},
    "optimizer": {"name": "momentum", "learning_rate": 0.1},
    "training": {"epochs": 2},
}


def first_layer(run):
    return open_run(run.folder, "last").network.conv1.weight.numpy()


def test_a_run_whitens_its_first_convolution_and_keeps_it(tmp_path):
    config = parse_config(CONFIG)
    run = fit(config, tmp_path, "whole")
    weight = first_layer(run)
    np.testing.assert_array_equal(weight[4:], -weight[:4])
    network = resnet([1], 10, "cifar", width=8, in_channels=1)
    assert run.summary["parameters"] == count_parameters(network) - weight.size

    half = fit(parse_config(CONFIG | {"training": {"epochs": 1}}), tmp_path, "half")
    longer = resume(half.folder, ["training.epochs=2"])
    np.testing.assert_array_equal(first_layer(longer), first_layer(half))
    assert longer.model.network.conv1.weight.stop_gradient


def test_weights_from_elsewhere_would_be_replaced(tmp_path):
    changed = CONFIG | {"model": CONFIG["model"] | {"weights": str(tmp_path)}}
    with pytest.raises(UserError, match=r"model.whiten: would replace the first layer"):
        parse_config(changed)


@pytest.mark.parametrize("shape", [(6, 3, 40, 70), (6, 3, 9, 9)])
def test_filters_are_those_of_all_patches_at_once(shape):
    """Of at most 32 places along the shorter side."""
    images = np.random.default_rng(0).normal(size=shape).astype("float32") + 5
    windows = np.lib.stride_tricks.sliding_window_view(images, (3, 3), axis=(2, 3))
    step = 2 if shape[2] == 40 else 1
    patches = windows[:, :, ::step, ::step].transpose(0, 2, 3, 1, 4, 5).reshape(-1, 27)
    values = np.linalg.eigvalsh(np.cov(patches.astype("float64"), rowvar=False))[::-1]
    lengths = np.linalg.norm(whitening_filters(images, (3, 3, 3)).reshape(27, -1), axis=1)
    np.testing.assert_allclose(lengths, 1 / np.sqrt(values + EPSILON), rtol=1e-5)
