"""What is not finite ends a training before it is saved, wherever it is; what is absurd is told."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import paddle
import pytest
from paddle import nn
from softmax import CLASSES, EVAL, FEATURES, TRAIN, make_model

from resnet_fit import CrossEntropy, classification_metrics, fit, parse_config, resnet
from resnet_fit.callbacks import Checkpoint, Clock, History, NaNGuard, WeightAverage
from resnet_fit.errors import Diverged, RunFailed


class Poison(paddle.callbacks.Callback):
    """Makes a number of the network NaN after a step."""

    def __init__(self, name, step):
        super().__init__()
        self.name, self.step, self.steps = name, step, 0

    def on_train_batch_end(self, step, logs=None):
        self.steps += 1
        if self.steps == self.step:
            tensor = self.model.network.state_dict()[self.name]
            value = tensor.numpy().copy()
            value.flat[0] = np.nan
            tensor.set_value(value)


def make_network_with_relu():
    """Its ReLU makes 0 of NaN on a CPU, so its loss stays finite."""
    paddle.seed(0)
    network = nn.Sequential(
        nn.Linear(FEATURES, 5), nn.BatchNorm1D(5), nn.ReLU(), nn.Linear(5, CLASSES)
    )
    optimizer = paddle.optimizer.SGD(0.1, parameters=network.parameters())
    model = paddle.Model(network)
    model.prepare(optimizer, CrossEntropy(), classification_metrics(CrossEntropy(), CLASSES))
    return model


@pytest.mark.parametrize("name", ["0.weight", "1._variance", "1._mean"])
@pytest.mark.parametrize(("poisoned", "found"), [(1, 2), (2, 2), (3, 3), (4, 5), (6, 6)])
def test_weights_and_statistics_every_few_steps_and_at_an_epochs_end(name, poisoned, found):
    """An epoch has three steps."""
    model, guard = make_network_with_relu(), NaNGuard(every_steps=2)
    expected = rf"{name} became NaN or infinite in epoch {(found + 2) // 3} at step {found}, at"
    with pytest.raises(Diverged, match=expected):
        model.fit(TRAIN, EVAL, epochs=3, verbose=0, callbacks=[Poison(name, poisoned), guard])


def test_steps_of_several_processes_go_by_in_groups():
    """Of groups of 7 steps the third is the first with a multiple of 20 in it."""
    dealer, checks = SimpleNamespace(turn=None), []
    guard = NaNGuard(Clock(dealer), every_steps=20)
    guard.set_params({"metrics": ["loss"], "steps": None})
    guard._check_network = lambda: checks.append(guard.clock.step)
    guard.on_train_begin()
    for epoch in range(2):
        guard.on_epoch_begin(epoch)
        for batch in range(42):
            group = batch // 7 * 7
            dealer.turn = SimpleNamespace(
                batch=batch,
                begin=group,
                end=group + 7,
                images=56,
                ends_group=batch % 7 == 6,
                batches=42,
            )
            guard.on_train_batch_end(batch, {"loss": 1.0, "batch_size": 8})
        guard.on_epoch_end(epoch)
    assert checks == [21, 42, 42, 63, 84, 84]  # and at each epoch's end


def test_the_loss_would_not_have_told():
    model, history = make_network_with_relu(), History()
    model.fit(TRAIN, epochs=2, verbose=0, callbacks=[Poison("0.weight", 1), history])
    assert all(np.isfinite(row["train"]["loss"]) for row in history.rows)
    assert np.isnan(model.network.state_dict()["0.weight"].numpy()).any()


def test_the_loss_at_once():
    poison = [np.full((8, FEATURES), np.nan, "float32"), np.zeros(8, "int64")]
    with pytest.raises(Diverged, match=r"the loss became nan in epoch 1 at step 2, at a learning"):
        make_model().fit([TRAIN[0], poison], verbose=0, callbacks=[NaNGuard()])


def test_an_evaluation_before_it_is_written_or_saved(tmp_path):
    poison = [np.full((8, FEATURES), np.inf, "float32"), np.zeros(8, "int64")]
    history, checkpoint = History(tmp_path / "metrics.jsonl"), Checkpoint(tmp_path)
    with pytest.raises(Diverged, match=r"the evaluation's loss became nan in epoch 1 at step 3"):
        make_model().fit(TRAIN, [poison], verbose=0, callbacks=[NaNGuard(), history, checkpoint])
    assert "eval" not in history.rows[0]
    saved = json.loads((tmp_path / "last" / "state.json").read_text())["checkpoint"]
    assert saved == {"best": None, "best_step": None, "awaits_evaluation": True}
    assert not (tmp_path / "best").exists()


def test_the_evaluation_of_averaged_weights():
    class PoisonAverage(paddle.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            average.average["bias"][0] = np.nan

    average = WeightAverage(EVAL)
    callbacks = [PoisonAverage(), average, NaNGuard()]
    with pytest.raises(Diverged, match=r"the evaluation's ema_loss became nan in epoch 1"):
        make_model().fit(TRAIN, EVAL, verbose=0, callbacks=callbacks)


def test_an_absurd_loss_of_an_evaluation_is_told():
    huge = [EVAL[0][0] * 1e6, EVAL[0][1]]
    with pytest.warns(UserWarning, match=r"epoch 1: the evaluation's loss is \d.*; try a lower"):
        make_model().fit(TRAIN, [huge], verbose=0, callbacks=[NaNGuard()])


@pytest.mark.parametrize("on_nan", ["stop", "skip"])
@pytest.mark.parametrize("backend", ["paddle", "onednn"])
@pytest.mark.filterwarnings("ignore:epoch")
def test_a_run_that_diverges_fails_and_has_nothing_that_is_not_finite(
    tiny, tmp_path, on_nan, backend
):
    tiny["model"]["depth"] = 18
    tiny["data"]["limit"] = 320
    tiny["optimizer"]["learning_rate"] = 1e3
    tiny["schedule"] = {"name": "constant"}
    tiny["training"] |= {"epochs": 4, "on_nan": on_nan, "backend": backend}
    with pytest.raises(RunFailed, match=r"the training diverged: .*; (no|the last) checkpoint"):
        fit(parse_config(tiny), tmp_path, "run")
    check_json(tmp_path / "run")


def check_json(run):
    def refuse(name):
        raise AssertionError(name)

    for file in run.rglob("*.json"):
        json.loads(file.read_text(), parse_constant=refuse)
    for file in run.glob("metrics.jsonl"):
        for line in file.read_text().splitlines():
            json.loads(line, parse_constant=refuse)


def test_the_last_checkpoint_is_named_and_untouched(tiny, tmp_path):
    tiny["optimizer"] = {"name": "sgd", "learning_rate": 0.1}
    tiny["schedule"] = {"name": "constant", "warmup_epochs": 1.0}
    tiny["training"]["epochs"] = 3
    config = parse_config(tiny)
    last = tmp_path / "run" / "checkpoints" / "last"
    real = NaNGuard.on_epoch_end

    def diverge(self, epoch, logs=None):
        if epoch == 1:
            self.model.network.conv1.weight.set_value(self.model.network.conv1.weight * np.inf)
        real(self, epoch, logs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NaNGuard, "on_epoch_end", diverge)
        with pytest.raises(RunFailed, match=rf"; the last checkpoint, {last}, is of epoch 1, ste"):
            fit(config, tmp_path, "run")
    clock = json.loads((last / "state.json").read_text())["clock"]
    assert (clock["epoch"], clock["step"]) == (1, 23)
    check_json(tmp_path / "run")


def test_a_run_that_ends_with_an_absurd_loss_has_failed(tiny, tmp_path):
    """Finite all the time, and of no use."""
    network = resnet([1, 1], 10, "cifar", width=8, in_channels=1)
    network.fc.weight.set_value(network.fc.weight * 1e8)
    paddle.save(network.state_dict(), str(tmp_path / "start.pdparams"))
    tiny["model"]["weights"] = str(tmp_path / "start.pdparams")
    tiny["optimizer"] = {"name": "sgd", "learning_rate": 1e-9}
    tiny["training"]["epochs"] = 1
    tiny["data"]["limit"] = 100
    with (
        pytest.warns(UserWarning, match="epoch 1: the evaluation's loss is"),
        pytest.raises(RunFailed, match=r"the last evaluation's loss is \d"),
    ):
        fit(parse_config(tiny), tmp_path, "run")
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["last"]["eval"]["loss"] > 1e4
    check_json(tmp_path / "run")
