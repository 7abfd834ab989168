"""One step of every optimizer against its formula in numpy."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from resnet_fit.errors import UserError
from resnet_fit.training.optimizers.adam import Adam, AdamW
from resnet_fit.training.optimizers.lamb import Lamb
from resnet_fit.training.optimizers.momentum import Momentum
from resnet_fit.training.optimizers.muon import Muon
from resnet_fit.training.optimizers.rmsprop import RMSProp
from resnet_fit.training.optimizers.sgd import SGD
from resnet_fit.training.orthogonal import NEWTON_SCHULZ, STEPS, orthogonal

RATE, DECAY = 0.1, 0.05


def momentum(nesterov):
    def step(w, g, state):
        v = 0.9 * state.get("v", 0) + g
        state["v"] = v
        return w - RATE * (g + 0.9 * v if nesterov else v)

    return step


def adam(w, g, state):
    t = state["t"] = state.get("t", 0) + 1
    m = state["m"] = 0.9 * state.get("m", 0) + 0.1 * g
    v = state["v"] = 0.999 * state.get("v", 0) + 0.001 * g * g
    return w - RATE * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)


def lamb(w, g, state, decay):
    """You et al. 2019, algorithm 2; what has no decay is left at its length of step."""
    t = state["t"] = state.get("t", 0) + 1
    m = state["m"] = 0.9 * state.get("m", 0) + 0.1 * g
    v = state["v"] = 0.999 * state.get("v", 0) + 0.001 * g * g
    update = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-6) + decay * w
    trust = np.linalg.norm(w) / np.linalg.norm(update) if decay and np.any(w) else 1.0
    return w - RATE * trust * update


def rmsprop(centered):
    def step(w, g, state):
        square = state["square"] = 0.9 * state.get("square", 0) + 0.1 * g * g
        mean = state["mean"] = 0.9 * state.get("mean", 0) + 0.1 * g
        size = np.sqrt(square - centered * mean**2 + 1e-8)
        v = state["v"] = 0.5 * state.get("v", 0) + RATE * g / size
        return w - v

    return step


CASES = {
    "sgd": (SGD, {}, lambda w, g, s: w - RATE * g),
    "momentum": (Momentum, {}, momentum(False)),
    "nesterov": (Momentum, {"nesterov": True}, momentum(True)),
    "fused": (Momentum, {"fused": True}, momentum(False)),
    "adam": (Adam, {}, adam),
    "fused adam": (Adam, {"fused": True}, adam),
    "adamw": (AdamW, {}, adam),
    "rmsprop": (RMSProp, {"momentum": 0.5}, rmsprop(False)),
    "centered rmsprop": (RMSProp, {"momentum": 0.5, "centered": True}, rmsprop(True)),
    "lamb": (Lamb, {}, lamb),
}


@pytest.mark.parametrize("everything", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_three_steps(case, everything):
    kind, settings, step = CASES[case]
    config = kind(
        learning_rate=RATE, weight_decay=DECAY, decay_norms_and_biases=everything, **settings
    )
    paddle.seed(0)
    network = paddle.nn.Sequential(paddle.nn.Linear(4, 3), paddle.nn.BatchNorm1D(3))
    weights = {n: p.numpy().astype("float64") for n, p in network.named_parameters()}
    optimizer = config.build(network, RATE)
    states: dict[str, dict] = {name: {} for name in weights}
    x = paddle.to_tensor(np.random.default_rng(0).normal(size=(8, 4)).astype("float32"))
    for _ in range(3):
        (network(x) ** 2).sum().backward()
        for name, parameter in network.named_parameters():
            if parameter.stop_gradient:
                continue
            w, g = weights[name], parameter.grad.numpy().astype("float64")
            decay = DECAY if everything or w.ndim > 1 else 0.0
            if case == "lamb":
                weights[name] = lamb(w, g, states[name], decay)
                continue
            if case == "adamw":
                w, decay = w * (1 - RATE * decay), 0.0
            weights[name] = step(w, g + decay * w, states[name])
        optimizer.step()
        optimizer.clear_grad()
        for name, parameter in network.named_parameters():
            if not parameter.stop_gradient:
                np.testing.assert_allclose(
                    parameter.numpy(), weights[name], rtol=2e-4, atol=2e-6, err_msg=name
                )


@pytest.mark.parametrize("kind", [Momentum, Adam])
def test_a_fused_step_without_all_gradients_is_that_of_single_steps(kind):
    """Some steps with all gradients between some without: one state for both ways."""
    weights = []
    for fused in (False, True):
        paddle.seed(0)
        network = paddle.nn.LayerList(paddle.nn.Linear(4, 4) for _ in range(3))
        optimizer = kind(learning_rate=0.1, weight_decay=DECAY, fused=fused).build(network, 0.1)
        for layers in ([1], [0, 1, 2], [2, 0], [0, 1, 2]):
            x = paddle.ones([2, 4])
            for layer in layers:
                x = network[layer](x)
            (x**2).sum().backward()
            optimizer.step()
            optimizer.clear_grad()
        weights.append([p.numpy() for p in network.parameters()])
    for ours, theirs in zip(*weights, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


# --- muon -----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(16, 27), (27, 16), (32, 32), (1, 5), (64, 576)])
def test_orthogonal_draws_singular_values_to_one_and_turns_nothing(shape):
    matrix = np.random.default_rng(0).normal(size=shape).astype("float32")
    u, values, vt = np.linalg.svd(matrix, full_matrices=False)
    drawn = u.T @ orthogonal(paddle.to_tensor(matrix)).numpy() @ vt.T
    np.testing.assert_allclose(drawn - np.diag(np.diag(drawn)), 0, atol=1e-4)
    a, b, c = NEWTON_SCHULZ
    values = values / np.linalg.norm(values)
    for _ in range(STEPS):
        values = a * values + b * values**3 + c * values**5
    np.testing.assert_allclose(np.diag(drawn), values, atol=1e-3)
    assert np.all((values[: len(values) // 2] > 0.6) & (values[: len(values) // 2] < 1.2))


def test_orthogonal_leaves_zeros():
    assert not orthogonal(paddle.zeros([3, 5])).numpy().any()


@pytest.mark.parametrize("nesterov", [False, True])
def test_three_steps_of_muon(nesterov):
    """Against numpy, for what is a convolution; the rest against momentum at its own rate."""
    angle, rate = 0.05, 0.2
    options = {"momentum": 0.9, "nesterov": nesterov, "weight_decay": DECAY}
    config = Muon(learning_rate=angle, head_and_norm_lr=rate, **options)
    paddle.seed(0)
    make = lambda: paddle.nn.Sequential(  # noqa: E731
        paddle.nn.Conv2D(3, 8, 3), paddle.nn.BatchNorm2D(8), paddle.nn.Flatten(),
        paddle.nn.Linear(32, 2),
    )  # fmt: skip
    network, control = make(), make()
    control.set_state_dict(network.state_dict())
    optimizer = config.build(network, angle)
    plain = Momentum(learning_rate=rate, **options)
    momentum = plain.build(control, rate)
    weight = network[0].weight.numpy().astype("float64")
    norm, velocity = np.linalg.norm(weight), 0.0
    for step in range(3):
        x = paddle.to_tensor(np.random.default_rng(step).normal(size=(8, 3, 4, 4)), "float32")
        for net in (network, control):
            (net(x) ** 2).sum().backward()
        gradient = network[0].weight.grad.numpy().astype("float64")
        velocity = 0.9 * velocity + gradient
        direction = gradient + 0.9 * velocity if nesterov else velocity
        for _ in optimizer, momentum:
            _.step()
            _.clear_grad()
        turn = numpy_orthogonal(direction.reshape(8, 27)).reshape(weight.shape)
        weight = weight - angle * norm * turn / np.linalg.norm(turn)
        weight *= norm / np.linalg.norm(weight)
        np.testing.assert_allclose(network[0].weight.numpy(), weight, rtol=1e-3, atol=1e-5)
        control[0].weight.set_value(network[0].weight)  # the rest sees the same images
        for ours, theirs in zip(network.parameters()[1:], control.parameters()[1:], strict=True):
            np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-5, atol=1e-6)


def test_a_second_optimizer_of_the_same_network_has_the_same_rates():
    network = paddle.nn.Sequential(paddle.nn.Conv2D(3, 4, 3), paddle.nn.Linear(4, 2))
    config = Muon(learning_rate=0.1, head_and_norm_lr=0.2, lr_factors={"1": 0.5})
    for _ in range(2):
        config.build(network, 0.1)
        rates = [p.optimize_attr["learning_rate"] for p in network.parameters()]
        assert rates == pytest.approx([1.0, 2.0, 1.0, 1.0])


def test_muon_without_a_gradient_changes_nothing():
    """As at the beginning of branches whose last norm starts at zero."""
    layer = paddle.nn.Conv2D(3, 4, 3, bias_attr=False)
    before = layer.weight.numpy()
    optimizer = Muon(learning_rate=0.1, head_and_norm_lr=0.1).build(layer, 0.1)
    (layer(paddle.ones([1, 3, 4, 4])) * 0).sum().backward()
    optimizer.step()
    np.testing.assert_allclose(layer.weight.numpy(), before, rtol=1e-6)
    layer.weight.set_value(paddle.zeros(layer.weight.shape))
    layer(paddle.ones([1, 3, 4, 4])).sum().backward()
    optimizer.step()
    assert not layer.weight.numpy().any()


def numpy_orthogonal(matrix):
    """As published: the polynomial of the whole matrix."""
    a, b, c = NEWTON_SCHULZ
    matrix = matrix / np.linalg.norm(matrix)
    for _ in range(STEPS):
        square = matrix @ matrix.T
        matrix = a * matrix + (b * square + c * square @ square) @ matrix
    return matrix


# --- clipping -------------------------------------------------------------------------


def test_gradients_are_clipped_by_their_global_norm():
    network = paddle.nn.Linear(4, 3)
    before = {n: p.numpy() for n, p in network.named_parameters()}
    optimizer = SGD(learning_rate=1.0, clip_norm=0.5).build(network, 1.0)
    (network(paddle.ones([2, 4])) * 100).sum().backward()
    optimizer.step()
    moved = [p.numpy() - before[n] for n, p in network.named_parameters()]
    assert np.sqrt(sum((m**2).sum() for m in moved)) == pytest.approx(0.5, rel=1e-4)


def test_lamb_without_decay_would_be_adam():
    with pytest.raises(UserError, match="weight_decay: required, but not given"):
        Lamb.of(learning_rate=0.1)
    with pytest.raises(UserError, match="weight_decay: expected more than 0, received 0"):
        Lamb.of(learning_rate=0.1, weight_decay=0)
