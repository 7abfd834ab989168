"""``resnet-fit find-lr``: the test itself, what it suggests, and that it leaves no trace."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import paddle
import pytest
from PIL import Image

from resnet_fit import parse_config, resnet
from resnet_fit.cli import main
from resnet_fit.reports.lr_range import SMOOTHING, RangeTest, find_lr
from resnet_fit.runs.experiment import set_up


def seen(rates, losses) -> RangeTest:
    test = RangeTest()
    for rate, loss in zip(rates, losses, strict=True):
        if test.add(rate, loss):
            break
    return test


RATES = np.geomspace(1e-5, 10, 100).tolist()


def bowl(lowest: float) -> list[float]:
    """Losses that stay, fall, and rise steeply behind ``lowest``."""
    away = np.log10(np.array(RATES) / lowest)
    return (2.3 - 1.5 * np.exp(-(away**2)) + np.where(away > 0, away**4, 0)).tolist()


def test_losses_are_smoothed_as_pandas_does():
    losses = np.random.default_rng(0).normal(2, 0.5, 60)
    pd = pytest.importorskip("pandas")
    expected = pd.Series(losses).ewm(alpha=1 - SMOOTHING, adjust=True).mean()
    np.testing.assert_allclose(seen(RATES[:60], losses).smoothed, expected, rtol=1e-9)


def test_the_test_ends_where_the_loss_is_four_times_its_least_value():
    losses = [2.0] * 50 + [1.0] * 20 + [100.0] * 30
    test = seen(RATES, losses)
    assert len(test.losses) == 71
    assert test.ended is not None
    assert "4 times its least value" in test.ended


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_test_ends_at_a_loss_that_is_no_number(value):
    test = seen(RATES, [*bowl(0.1)[:70], value, 1.0])
    assert len(test.losses) == 71
    assert test.problem is None
    assert 0.05 < test.suggestion < 1


def test_nothing_is_suggested_where_the_loss_does_not_fall():
    test = seen(RATES, np.linspace(2.3, 4.0, 100).tolist())
    assert test.problem is not None
    assert "fell nowhere" in test.problem


def test_a_larger_rate_is_asked_for_where_the_loss_still_falls():
    test = seen(RATES, np.linspace(2.3, 0.5, 100).tolist())
    assert test.problem is not None
    assert "--to" in test.problem


# --- on a config ----------------------------------------------------------------------


def test_rates_grow_by_equal_factors_and_are_those_of_the_optimizer(tiny, monkeypatch):
    used = []
    step = paddle.optimizer.Momentum.step

    def noting(optimizer):
        used.append(optimizer.get_lr())
        step(optimizer)

    monkeypatch.setattr(paddle.optimizer.Momentum, "minimize", lambda self, _: noting(self))
    tiny["optimizer"] |= {"reference_batch_size": 32}
    test = find_lr(parse_config(tiny), 1e-4, 1e-2, 11)
    np.testing.assert_allclose(test.rates, np.geomspace(1e-4, 1e-2, 11))
    np.testing.assert_allclose(used, 2 * np.geomspace(1e-4, 1e-2, 11))  # batches of 64


def test_an_accumulated_step_is_one_of_a_big_batch(tiny, clean_registry):
    """Without norms' batch statistics both see the same: here a plain linear network."""
    from paddle import nn

    from resnet_fit.parts import Network, part

    @part("network", "linear")
    class Linear(Network):
        """A linear layer."""

        def build(self, classes, channels):
            return nn.Sequential(nn.Flatten(), nn.Linear(64 * channels, classes))

    tiny["model"] = {"name": "linear"}
    tiny["augmentation"] = {"train": ["normalize"]}
    whole = find_lr(parse_config(tiny), 1e-3, 1, 22)
    tiny["data"]["batch_size"] = 16
    tiny["training"]["accumulate"] = 4
    parts = find_lr(parse_config(tiny), 1e-3, 1, 22)  # the full batches of an epoch
    np.testing.assert_allclose(parts.losses, whole.losses, rtol=1e-4)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_first_loss_that_is_no_number_is_an_error(tiny, write_yaml, tmp_path, value, capsys):
    network = resnet([1, 1], 10, "cifar", width=8, in_channels=1)
    network.fc.bias.set_value(paddle.full([10], value))
    paddle.save(network.state_dict(), str(tmp_path / "w.pdparams"))
    file = write_yaml(tiny | {"model": tiny["model"] | {"weights": str(tmp_path / "w.pdparams")}})
    assert main(["find-lr", "--config", str(file), "--steps", "10"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "the loss is nan at the first step" in line


def test_a_short_epoch_goes_round(tiny):
    tiny["data"] |= {"limit": 100}  # two batches
    assert len(find_lr(parse_config(tiny), 1e-4, 1e-2, 12).losses) == 12


def test_it_is_the_runs_own_network_and_batches(tiny):
    config = parse_config(tiny)
    test = find_lr(config, 1e-5, 1e-3, 10)
    experiment = set_up(config)
    images, labels = next(iter(experiment.loaders.train))
    (loss,), _ = experiment.model.train_batch([images], [labels])
    assert test.losses[0] == pytest.approx(float(loss), rel=1e-5)


def test_nothing_else_notices(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    random.seed(1)
    np.random.seed(1)
    paddle.seed(1)
    expected = random.random(), np.random.rand(), paddle.rand([1]).item()
    name = paddle.nn.Linear(1, 1).weight.name
    random.seed(1)
    np.random.seed(1)
    paddle.seed(1)
    find_lr(parse_config(tiny), 1e-4, 1e-2, 10)
    assert (random.random(), np.random.rand(), paddle.rand([1]).item()) == expected
    number = int(name.split("_")[1].split(".")[0])
    assert paddle.nn.Linear(1, 1).weight.name == f"linear_{number + 1}.w_0"
    assert not list(tmp_path.iterdir())


# --- the command ----------------------------------------------------------------------


def test_the_command_suggests_and_draws(write_yaml, tiny, tmp_path, capsys):
    file = tmp_path / "range.png"
    tiny["optimizer"] |= {"reference_batch_size": 32}
    arguments = ["--steps", "60", "--output", str(file)]
    assert main(["find-lr", "--config", str(write_yaml(tiny)), *arguments]) == 0
    text = capsys.readouterr().out
    assert "to train at it: --set optimizer.learning_rate=" in text
    assert "a step of 64 images uses " in text
    assert Image.open(file).size == (960, 600)
    assert {p.name for p in tmp_path.iterdir()} == {"experiment.yaml", "range.png"}


def test_all_rates_of_muon_are_scaled_alike(tiny):
    tiny["optimizer"] = {"name": "muon", "learning_rate": 0.01, "head_and_norm_lr": 0.2}
    optimizer = parse_config(tiny).optimizer
    assert optimizer.at_rate(0.03) == pytest.approx(
        {"learning_rate": 0.03, "head_and_norm_lr": 0.6}
    )


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (["--from", "0"], "--from: received '0', expected a number above 0", 2),
        (["--from", "1", "--to", "0.1"], "--from: received 1, expected less than --to 0.1", 2),
        (["--steps", "5"], "--steps: received '5', expected a whole number from 10", 2),
        (["--output", "plot.jpeg"], "expected a name that ends in .png, .svg or .pdf", 2),
        (["--output", "no/plot.png"], "there is no folder no", 2),
        (["--set", "data.name=digit"], "Did you mean 'digits'?", 2),
        (["--to", "1e-4", "--steps", "10"], "the loss fell nowhere", 1),
    ],
)
def test_a_mistake_is_one_line(write_yaml, tiny, arguments, words, code, capsys):
    assert main(["find-lr", "--config", str(write_yaml(tiny)), *arguments]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


def test_a_plot_that_cannot_be_written_leaves_nothing(tmp_path):
    from resnet_fit.reports.lr_plot import plot

    file = tmp_path / "folder" / "plot.png"
    with pytest.raises(OSError, match=r"plot\.png|folder"):
        plot(seen(RATES, bowl(0.1)), file)
    assert not list(Path(tmp_path).iterdir())
