"""A step that is left out leaves no trace; too many of them end the run."""

from __future__ import annotations

import numpy as np
import paddle
import pytest
from paddle import nn
from softmax import CLASSES, EVAL, FEATURES, TRAIN

from resnet_fit import fit, parse_config
from resnet_fit.callbacks import History, NaNSkip, WeightAverage
from resnet_fit.errors import RunFailed
from resnet_fit.training import CrossEntropy, classification_metrics

POISON = [np.full((4, FEATURES), np.nan, "float32"), np.zeros(4, "int64")]


def make_normed_model():
    paddle.seed(0)
    network = nn.Sequential(nn.BatchNorm1D(FEATURES), nn.Linear(FEATURES, CLASSES))
    optimizer = paddle.optimizer.Momentum(0.1, parameters=network.parameters())
    model = paddle.Model(network)
    model.prepare(optimizer, CrossEntropy(), classification_metrics(CrossEntropy(), CLASSES))
    return model


def trained(batches, *callbacks):
    model, history = make_normed_model(), History()
    model.fit(batches, EVAL, epochs=2, verbose=0, callbacks=[*callbacks, history])
    return {n: t.numpy() for n, t in model.network.state_dict().items()}, history.rows, model


@pytest.mark.parametrize("where", [0, 1, 3])
def test_a_step_left_out_leaves_no_trace(where):
    skip = NaNSkip()
    with pytest.warns(UserWarning, match=r"epoch 1, step \d: left out"):
        weights, rows, model = trained([*TRAIN[:where], POISON, *TRAIN[where:]], skip)
    expected, expected_rows, _ = trained(TRAIN)
    assert all(np.array_equal(weights[name], expected[name]) for name in expected)
    assert [r["train"] for r in rows] == [r["train"] for r in expected_rows]
    assert [r["eval"] for r in rows] == [r["eval"] for r in expected_rows]
    assert skip.skipped == 2
    assert "minimize" not in vars(model._optimizer), "the optimizer has its own step back"


def test_a_step_left_out_does_not_move_the_average():
    average = WeightAverage(decay=0.5)
    with pytest.warns(UserWarning, match="left out"):
        trained([TRAIN[0], POISON, *TRAIN[1:]], NaNSkip(), average)
    alone = WeightAverage(decay=0.5)
    trained(TRAIN, alone)
    assert average.updates == alone.updates == 6
    for name, tensor in alone.average.items():
        assert np.array_equal(average.average[name].numpy(), tensor.numpy()), name


@pytest.mark.filterwarnings("ignore:epoch")
def test_running_statistics_that_are_not_finite_are_put_back():
    """Images so large that only their variance is infinite: loss and gradients stay finite."""
    large = [np.full((4, FEATURES), 1e38, "float32"), np.zeros(4, "int64")]
    large[0][::2] *= -1
    skip = NaNSkip()
    weights, _, _ = trained([TRAIN[0], large, *TRAIN[1:]], skip)
    expected, _, _ = trained(TRAIN)
    assert skip.skipped == 2
    assert all(np.array_equal(weights[name], expected[name]) for name in expected)


def test_without_it_everything_is_lost():
    weights, _, _ = trained([TRAIN[0], POISON, TRAIN[1]])
    assert np.isnan(weights["1.weight"]).any()


@pytest.mark.filterwarnings("ignore:epoch")
def test_an_epoch_without_a_step_ends_the_run():
    """It would report a loss of 0, the mean over no images."""
    with pytest.raises(RunFailed, match=r"for 3 steps in a row, the last .* epoch 1 at step 3,"):
        trained([POISON] * 3, NaNSkip())


@pytest.mark.filterwarnings("ignore:epoch")
def test_too_many_in_a_row_end_the_run():
    with pytest.raises(RunFailed, match=r"for 3 steps in a row, the last .* epoch 1 at step 4,"):
        trained([TRAIN[0], POISON, POISON, POISON], NaNSkip(most=3))
    trained([TRAIN[0], POISON, POISON, TRAIN[1]], NaNSkip(most=3))


@pytest.mark.filterwarnings("ignore:epoch")
def test_a_run_that_only_skips_fails_in_one_line(tiny, tmp_path):
    tiny["optimizer"] = {"name": "sgd", "learning_rate": 1e30}
    tiny["schedule"] = {"name": "constant"}
    tiny["training"]["on_nan"] = "skip"
    with pytest.raises(RunFailed, match="for 20 steps in a row"):
        fit(parse_config(tiny), tmp_path, "run")
