"""Mixed precision as on a GPU, by a CPU that is told to be one: all but the numbers' own type."""

import json
from functools import partial

import numpy as np
import paddle
import pytest
from pretended import let_precision_pass

from resnet_fit import fit, parse_config, resume
from resnet_fit.runs import experiment
from resnet_fit.training.precision import LossScaler

PRECISION = "training.precision={}"


@pytest.fixture
def casts(monkeypatch):
    return let_precision_pass(monkeypatch)


def checkpoint_of(run):
    return json.loads((run.folder / "checkpoints" / "last" / "state.json").read_text())


@pytest.fixture
def small(tiny):
    """Four batches an epoch to train on, and two to evaluate."""
    tiny["data"] |= {"limit": 200, "eval_batch_size": 150}
    return tiny


@pytest.mark.parametrize(
    "overrides",
    [
        ["training.backend=paddle"],
        ["training.backend=channels_last"],
        ["training.backend=channels_last", "training.compile=static"],
        ["training.backend=paddle", "training.on_nan=skip", "callbacks.flip_average={}"],
    ],
)
def test_every_pass_of_a_run_is_cast(small, tmp_path, casts, overrides):
    exact = fit(parse_config(small, overrides), tmp_path, "exact")
    assert not casts
    views = 3 if "callbacks.flip_average={}" in overrides else 1
    one_epoch = 4 + views * 2
    for dtype in ("float16", "bfloat16"):
        casts.clear()
        run = fit(parse_config(small, [*overrides, PRECISION.format(dtype)]), tmp_path, dtype)
        assert casts == [("O1", dtype)] * 2 * one_epoch
        assert run.summary["last"]["train"] == exact.summary["last"]["train"]
        assert run.summary["last"]["eval"] == exact.summary["last"]["eval"]


def test_float16_scales_the_loss_and_goes_on_so(small, tmp_path, casts):
    run = fit(
        parse_config(small, ["training.backend=paddle", PRECISION.format("float16")]), tmp_path
    )
    steps = run.summary["last"]["step"]
    scaler = checkpoint_of(run)["scaler"]
    assert scaler["scale"] == [65536.0]
    assert scaler["incr_count"] == steps
    longer = resume(run.folder, ["training.epochs=3"])
    assert checkpoint_of(longer)["scaler"]["incr_count"] == longer.summary["last"]["step"] > steps


@pytest.mark.filterwarnings("ignore:epoch 1, step")
@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
@pytest.mark.parametrize("fused", [False, True])
def test_steps_that_the_scale_makes_too_large_move_nothing(
    tiny, tmp_path, casts, monkeypatch, capfd, optimizer, fused
):
    scaler = partial(LossScaler, init_loss_scaling=3e38)
    monkeypatch.setattr(experiment, "LossScaler", scaler)
    tiny["training"] |= {"epochs": 1}
    tiny["optimizer"] = {"name": optimizer, "learning_rate": 0.01, "fused": fused}
    tiny["callbacks"] = {"weight_average": {"decay": 0.9}}
    overrides = ["training.backend=paddle", PRECISION.format("float16")]
    run = fit(parse_config(tiny, overrides), tmp_path, "run")
    updates = checkpoint_of(run)["weight_average"]["updates"]
    assert 0 < updates < run.summary["last"]["step"]
    told = checkpoint_of(fit(parse_config(tiny, [*overrides, "training.on_nan=skip"]), tmp_path))
    assert told["weight_average"]["updates"] == updates
    assert told["nan_skip"]["skipped"] == run.summary["last"]["step"] - updates
    assert "Found inf" not in capfd.readouterr().out  # it would stand within the progress line


def test_bfloat16_needs_no_scale(small, tmp_path, casts):
    run = fit(
        parse_config(small, ["training.backend=paddle", PRECISION.format("bfloat16")]), tmp_path
    )
    assert checkpoint_of(run)["scaler"] is None


@pytest.mark.parametrize("bound", [1, 2])
def test_the_scale_is_paddles_own(casts, bound):
    """After overflows and steps without one, in any order."""
    options = {"init_loss_scaling": 64.0, "incr_every_n_steps": 3, "decr_every_n_nan_or_inf": bound}
    with paddle.amp.auto_cast(enable=False):
        ours = LossScaler(**options)
    weight = paddle.create_parameter([2], "float32")
    optimizer = paddle.optimizer.SGD(0.1, parameters=[weight])
    scale, good, bad = 64.0, 0, 0
    for overflows in [0, 1, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 1]:
        weight.grad = paddle.full([2], float("inf") if overflows else 1.0)
        before = weight.numpy()
        ours.minimize(optimizer, paddle.zeros([1]))  # the gradients are there already
        assert np.array_equal(weight.numpy(), before) == bool(overflows)
        good, bad = (0, bad + 1) if overflows else (good + 1, 0)
        if bad == bound:
            scale, bad = scale / 2, 0
        if good == 3:
            scale, good = scale * 2, 0
        assert ours.state_dict()["scale"].tolist() == [scale]
        assert (ours._incr_count, ours._decr_count) == (good, bad)
