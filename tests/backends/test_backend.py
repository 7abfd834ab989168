"""Networks on any backend can be copied, pickled, and saved as static graphs."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import paddle
import pytest
from paddle.static import InputSpec

from resnet_fit import densenet, resnet
from resnet_fit.backends import compile_forward, onednn_problem, use_backend
from resnet_fit.errors import UserError
from resnet_fit.training.precision import use_precision

BACKENDS = ["paddle", "channels_last", *([] if onednn_problem() else ["onednn"])]
# Saved as static graphs: that of `onednn` is the one of `paddle`.
SAVED = [name for name in BACKENDS if name != "paddle" or "onednn" not in BACKENDS]
NETWORKS = {
    "residual": lambda: resnet([1, 1], 10, "cifar", width=8),
    "stochastic depth": lambda: resnet([1, 1], 10, "cifar", width=8, stochastic_depth=0.5),
    "zero-pad": lambda: resnet(8, 10, "cifar3", "zero-pad"),
    "dense": lambda: densenet([2, 1], 10, "cifar", growth=6),
}
IMAGES = np.random.default_rng(0).normal(size=(4, 3, 16, 16)).astype("float32")


def evaluate(network):
    network.eval()
    return network(paddle.to_tensor(IMAGES)).numpy()


def trained_model(network):
    model = paddle.Model(network)
    optimizer = paddle.optimizer.Momentum(0.01, parameters=network.parameters())
    model.prepare(optimizer, paddle.nn.CrossEntropyLoss())
    model.train_batch([IMAGES], [np.arange(4).reshape(4, 1)])
    return model


def engines_of(network):
    parts = network.sublayers(include_self=True)
    return [part.backend for part in parts if hasattr(part, "backend")]


def pickled(network):
    try:
        pickle.dumps(paddle.nn.Linear(1, 1))
    except TypeError:
        pytest.skip("this Paddle pickles no layer at all")
    return pickle.loads(pickle.dumps(network))  # with parameters that cannot be trained


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
def test_a_copy_computes_the_same_and_is_independent(copied, backend):
    network = NETWORKS["residual"]()
    use_backend(network, backend)
    expected = evaluate(network)
    other = copied(network)
    np.testing.assert_array_equal(evaluate(other), expected)
    assert {each.name for each in engines_of(other)} == {backend}
    for value in other.state_dict().values():
        paddle.assign(value * 2, value)
    use_backend(other, "paddle")
    np.testing.assert_array_equal(evaluate(network), expected)
    assert {each.name for each in engines_of(network)} == {backend}


@pytest.mark.filterwarnings("ignore:'inputs' was not specified")
@pytest.mark.parametrize("backend", SAVED)
@pytest.mark.parametrize("kind", NETWORKS)
def test_a_network_saved_after_a_training_gives_its_outputs(kind, backend, tmp_path):
    network = NETWORKS[kind]()
    use_backend(network, backend)
    before = engines_of(network)
    model = trained_model(network)
    model.save(str(tmp_path / "model"), training=False)
    spec = [InputSpec([None, 3, 16, 16], "float32")]
    paddle.jit.save(network, str(tmp_path / "training"), spec)
    network.eval()
    paddle.jit.save(network, str(tmp_path / "evaluating"), spec)
    assert engines_of(network) == before
    expected = evaluate(network)
    for name in ("model", "training", "evaluating"):
        saved = paddle.jit.load(str(tmp_path / name))
        saved.eval()
        ours = saved(paddle.to_tensor(IMAGES)).numpy()
        np.testing.assert_allclose(ours, expected, atol=1e-5, err_msg=name)


def cast(network):
    use_precision("bfloat16", network, "paddle")


@pytest.mark.parametrize("change", [compile_forward, cast])
def test_networks_whose_forward_pass_was_replaced_are_copied_and_saved_too(change, tmp_path):
    network = NETWORKS["stochastic depth"]()
    change(network)
    expected = evaluate(network)
    other = copy.deepcopy(network)
    np.testing.assert_allclose(evaluate(other), expected, atol=1e-6)
    for value in other.state_dict().values():
        paddle.assign(value * 2, value)
    assert not np.allclose(evaluate(other), expected)
    np.testing.assert_array_equal(evaluate(network), expected)
    network.train()
    path = str(tmp_path / "network")
    paddle.jit.save(network, path, [InputSpec([None, 3, 16, 16], "float32")])
    saved = paddle.jit.load(path)
    saved.eval()
    np.testing.assert_allclose(saved(paddle.to_tensor(IMAGES)).numpy(), expected, atol=1e-5)


@pytest.mark.bfloat16
def test_a_network_in_bfloat16_is_saved_in_float32(tmp_path):
    network = NETWORKS["residual"]()
    expected = evaluate(network)
    use_backend(network, "onednn", "bfloat16")
    path = str(tmp_path / "network")
    paddle.jit.save(network, path, [InputSpec([None, 3, 16, 16], "float32")])
    saved = paddle.jit.load(path)
    np.testing.assert_allclose(saved(paddle.to_tensor(IMAGES)).numpy(), expected, atol=1e-5)


def test_onednn_is_refused_where_tensors_are_on_a_gpu(monkeypatch):
    network = resnet([1], 10, "cifar", width=4)
    monkeypatch.setattr(paddle, "get_device", lambda: "gpu:0")
    with pytest.raises(UserError, match="computes on a CPU, and the device is gpu:0"):
        use_backend(network, "onednn")
    monkeypatch.undo()
    use_backend(network, "onednn")
