"""Checkpoints: ``last`` and ``best`` are what they say, and whole whatever happens."""

from __future__ import annotations

import json
import os
import time
from typing import ClassVar

import numpy as np
import paddle
import pytest
from paddle.metric import Metric
from softmax import EVAL, TRAIN, make_batches, make_model

from resnet_fit.callbacks import Checkpoint, Clock, History, WeightAverage
from resnet_fit.checkpoints.folder import load_checkpoint, save_checkpoint
from resnet_fit.checkpoints.optimizer_state import accumulators
from resnet_fit.errors import Diverged, RunFailed, UserError
from resnet_fit.networks import resnet
from resnet_fit.networks.weights import read_weights

NAN = float("nan")


class Scripted(Metric):
    """A metric whose evaluations are known beforehand."""

    def __init__(self, evaluations, name="top1"):
        super().__init__()
        self._name, self._evaluations = name, iter(evaluations)
        self._value = 0.0

    def name(self):
        return self._name

    def reset(self):
        pass

    def update(self, *_):
        return self._value

    def accumulate(self):
        return self._value


class Script(paddle.callbacks.Callback):
    """Turns the scripted metric to its next value, and notes the weights at each epoch's end."""

    def __init__(self, metric):
        super().__init__()
        self.metric, self.weights = metric, []

    def on_epoch_end(self, epoch, logs=None):
        self.weights.append(self.model.network.weight.numpy().copy())

    def on_eval_begin(self, logs=None):
        self.metric._value = next(self.metric._evaluations)


def fit(folder, evaluations, name="top1", mode="max", **options):
    """Train one epoch per value; returns the weights after each."""
    metric = Scripted(evaluations, name)
    script = Script(metric)
    checkpoint = Checkpoint(folder, monitor=name, mode=mode)
    make_model([metric]).fit(
        TRAIN, EVAL, epochs=len(evaluations), verbose=0, callbacks=[script, checkpoint], **options
    )
    return script.weights


def saved(folder):
    return read_weights(folder / "model.pdparams")["weight"]


def state(folder):
    return json.loads((folder / "state.json").read_text())


SERIES = {
    "rises": ("max", [0.1, 0.2, 0.3], 3),
    "falls": ("max", [0.3, 0.2, 0.1], 1),
    "best in the middle": ("max", [0.1, 0.5, 0.2, 0.4], 2),
    "the first of equals": ("max", [0.1, 0.4, 0.4], 2),
    "zero counts": ("max", [0.0, 0.0], 1),
    "lowest is best": ("min", [2.0, 0.5, 1.0], 2),
    "negative": ("min", [-1.0, -2.0, -1.5], 2),
    "no number at first": ("max", [NAN, 0.1, NAN], 2),
}


@pytest.mark.parametrize("series", SERIES)
def test_best_is_of_the_best_evaluation_and_last_of_the_last(series, tmp_path):
    mode, values, best = SERIES[series]
    weights = fit(tmp_path, values, mode=mode)
    assert np.array_equal(saved(tmp_path / "best"), weights[best - 1])
    assert np.array_equal(saved(tmp_path / "last"), weights[-1])
    assert state(tmp_path / "best")["clock"]["epoch"] == best
    assert state(tmp_path / "last")["clock"]["epoch"] == len(values)
    assert state(tmp_path / "last")["checkpoint"]["best"] == values[best - 1]


def test_of_a_loss_the_lowest_is_the_best_by_default(tmp_path):
    metric = Scripted([2.0, 0.5, 1.0], "loss")
    checkpoint = Checkpoint(tmp_path, monitor="loss")
    make_model([metric]).fit(
        TRAIN, EVAL, epochs=3, verbose=0, callbacks=[Script(metric), checkpoint]
    )
    assert state(tmp_path / "best")["clock"]["epoch"] == 2
    assert checkpoint.best == 0.5


def test_no_best_without_a_number(tmp_path):
    fit(tmp_path, [NAN, NAN])
    assert (tmp_path / "last").is_dir()
    assert not (tmp_path / "best").exists()


def test_a_second_fit_keeps_the_best_of_the_first(tmp_path):
    metric = Scripted([0.5, 0.3, 0.4])
    callbacks = [Script(metric), Checkpoint(tmp_path)]
    model = make_model([metric])
    model.fit(TRAIN, EVAL, epochs=2, verbose=0, callbacks=callbacks)
    model.fit(TRAIN, EVAL, epochs=1, verbose=0, callbacks=callbacks)
    assert state(tmp_path / "best")["clock"]["epoch"] == 1
    assert state(tmp_path / "last")["clock"]["epoch"] == 3


def test_an_evaluation_of_its_own_saves_nothing(tmp_path):
    model = make_model([Scripted([])])
    model.evaluate(EVAL, verbose=0, callbacks=[Checkpoint(tmp_path)])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("epochs", [1, 2])
def test_last_without_evaluation(tmp_path, epochs):
    model = make_model()
    checkpoint = Checkpoint(tmp_path, monitor="loss")
    model.fit(TRAIN, epochs=epochs, verbose=0, callbacks=[checkpoint])
    assert np.array_equal(saved(tmp_path / "last"), model.network.weight.numpy())
    assert state(tmp_path / "last")["clock"]["epoch"] == epochs
    assert not (tmp_path / "best").exists()


def test_any_models_metrics_by_their_own_names(tmp_path):
    model = make_model([paddle.metric.Accuracy()])
    model.fit(TRAIN, EVAL, epochs=1, verbose=0, callbacks=[Checkpoint(tmp_path, monitor="acc")])
    assert 0 < state(tmp_path / "best")["checkpoint"]["best"] < 1


def test_a_monitor_that_does_not_exist_is_refused_at_once(tmp_path):
    with pytest.raises(UserError, match=r"no metric 'top5'.*has: loss, top1, top3"):
        make_model().fit(TRAIN, EVAL, verbose=0, callbacks=[Checkpoint(tmp_path, monitor="top5")])
    assert not list(tmp_path.iterdir())


def test_a_mode_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"mode='maxx': choose max or min. Did you mean 'max'\?"):
        Checkpoint(tmp_path, mode="maxx")


def test_within_an_epoch_as_often_as_asked(tmp_path):
    class Count(Checkpoint):
        steps: ClassVar[list[int]] = []

        def save(self):
            self.steps.append(self.clock.step)
            super().save()

    make_model().fit(
        TRAIN, EVAL, epochs=2, verbose=0, callbacks=[Count(tmp_path, every_minutes=1e-9)]
    )
    # Twice at an epoch's last step: before its evaluation and after it.
    assert Count.steps == [1, 2, 3, 3, 4, 5, 6, 6]


def test_the_first_epoch_is_saved_before_its_evaluation(tmp_path):
    """Whatever ends the evaluation: there is something to go on from."""

    class Notes(paddle.callbacks.Callback):
        steps: ClassVar[list[tuple[int, bool]]] = []

        def on_eval_batch_end(self, step, logs=None):
            saved = state(tmp_path / "last")
            self.steps.append((saved["clock"]["step"], saved["checkpoint"]["awaits_evaluation"]))

    model = make_model()
    model.fit(TRAIN, EVAL, epochs=2, verbose=0, callbacks=[Checkpoint(tmp_path), Notes()])
    assert Notes.steps == [(3, True)] * 2 + [(3, False)] * 2, "the others after it alone"
    assert not state(tmp_path / "last")["checkpoint"]["awaits_evaluation"]
    assert not state(tmp_path / "best")["checkpoint"]["awaits_evaluation"]


def test_as_often_as_asked_in_steps_and_the_newest_epochs_kept(tmp_path):
    checkpoint = Checkpoint(tmp_path, every_steps=2, keep=2)
    saves = []
    real = checkpoint.save
    checkpoint.save = lambda: (saves.append(checkpoint.clock.step), real())
    make_model().fit(TRAIN, EVAL, epochs=3, verbose=0, callbacks=[checkpoint])
    assert saves == [2, 3, 5, 6, 8, 9]
    assert sorted(p.name for p in tmp_path.glob("e*")) == ["epoch-0002", "epoch-0003"]
    assert state(tmp_path / "epoch-0002")["clock"]["epoch"] == 2


def test_amid_accumulated_batches_it_waits_for_the_end_of_the_group(tmp_path):
    """Due after the third of five batches, of which two make a step."""
    checkpoint = Checkpoint(tmp_path, every_steps=3)
    saves = []
    real = checkpoint.save
    checkpoint.save = lambda: (saves.append(checkpoint.clock.step), real())
    batches = make_batches((4,) * 5)
    make_model().fit(
        batches, EVAL, epochs=2, verbose=0, callbacks=[checkpoint], accumulate_grad_batches=2
    )
    assert saves == [4, 5, 9, 10]


def test_only_folders_named_as_ours_are_deleted_and_the_newest_are_kept(tmp_path):
    for name in ("epoch-0001-the-good-one", "epoch-1", "epoch-00002", "epoch-x", "epoch-0000"):
        (tmp_path / name).mkdir()
    (tmp_path / "epochs.txt").touch()
    others = {path.name for path in tmp_path.iterdir()}
    checkpoint = Checkpoint(tmp_path, keep=2)
    checkpoint.clock.epoch = 9_997  # whose names sort as text the other way round
    make_model().fit(TRAIN, EVAL, epochs=4, verbose=0, callbacks=[checkpoint])
    ours = {path.name for path in tmp_path.iterdir()} - others
    assert ours == {"last", ".last.previous", "best", "epoch-10000", "epoch-10001"}
    assert others <= {path.name for path in tmp_path.iterdir()}


def test_writing_over_a_copy_leaves_last_as_it_is(tmp_path):
    make_model().fit(TRAIN, EVAL, epochs=1, verbose=0, callbacks=[Checkpoint(tmp_path, keep=1)])
    for name in ("best", "epoch-0001"):
        for file in (tmp_path / name).iterdir():
            file.write_bytes(b"")
    _, folder = load_checkpoint(tmp_path / "last", make_model())
    assert folder == tmp_path / "last"


def poison_weight(model, checkpoint):
    model.network.bias.set_value(paddle.to_tensor([0.0, NAN, 0.0, 0.0]))


def poison_optimizer(model, checkpoint):
    accumulators(model._optimizer, model.network)["weight:velocity_0"][0, 1] = -np.inf


def poison_average(model, checkpoint):
    checkpoint.average.average["bias"][0] = np.inf


def poison_metric(model, checkpoint):
    model._metrics[0].total = NAN


POISONS = {
    "bias": poison_weight,
    "weight:velocity_0": poison_optimizer,
    "the average of bias": poison_average,
    "a metric": poison_metric,
}


@pytest.mark.parametrize("what", POISONS)
def test_nothing_that_is_not_finite_is_saved(tmp_path, what):
    average = WeightAverage(decay=0.5)
    checkpoint = Checkpoint(tmp_path, average=average)
    model = make_model()
    model._optimizer = paddle.optimizer.Momentum(0.1, parameters=model.parameters())
    model.fit(TRAIN, EVAL, epochs=1, verbose=0, callbacks=[average, checkpoint])
    before = {file: file.read_bytes() for file in sorted(tmp_path.glob("*/*"))}
    POISONS[what](model, checkpoint)
    with pytest.raises(Diverged, match=rf"{what} became NaN or infinite in epoch 1 at step 3, at"):
        checkpoint.save()
    assert {file: file.read_bytes() for file in sorted(tmp_path.glob("*/*"))} == before


def test_paddle_opens_it_and_a_new_model_goes_on_from_it(tmp_path):
    model = make_model()
    model.fit(TRAIN, EVAL, epochs=1, verbose=0, callbacks=[Checkpoint(tmp_path)])
    opened = make_model()
    opened.load(str(tmp_path / "last" / "model"))
    assert np.array_equal(opened.network.weight.numpy(), model.network.weight.numpy())

    resumed = make_model()
    found, folder = load_checkpoint(tmp_path / "last", resumed)
    assert folder == tmp_path / "last"
    assert found["clock"]["step"] == 3
    for each in (model, resumed):
        each.fit(TRAIN, EVAL, epochs=1, verbose=0)
    assert np.array_equal(resumed.network.weight.numpy(), model.network.weight.numpy())


def full(*_, **__):
    raise OSError(28, "No space left on device")


def fail_at(monkeypatch, function, call):
    """Let the so-many-th call of ``module.function`` fail as on a full disk."""
    module, _, name = function.rpartition(".")
    place = {"os": os, "paddle": paddle, "numpy": np}[module]
    real, count = getattr(place, name), [0]

    def counted(*arguments, **options):
        count[0] += 1
        return full() if count[0] == call else real(*arguments, **options)

    monkeypatch.setattr(place, name, counted)
    return count


INTERRUPTIONS = [
    ("paddle.save", 1),
    ("numpy.savez", 1),
    ("os.fsync", 1),
    ("os.fsync", 4),
    *(("os.replace", call) for call in (1, 2)),
]


@pytest.mark.parametrize(("function", "call"), INTERRUPTIONS)
def test_a_save_that_fails_leaves_what_was_there(tmp_path, monkeypatch, function, call):
    metric = Scripted([0.1, 0.2])
    script, checkpoint = Script(metric), Checkpoint(tmp_path)
    model = make_model([metric])
    model.fit(TRAIN, EVAL, epochs=1, verbose=0, callbacks=[script, checkpoint])
    with monkeypatch.context() as patch:
        count = fail_at(patch, function, call)
        with pytest.raises(RunFailed) as caught:
            model.fit(TRAIN, EVAL, epochs=1, verbose=0, callbacks=[script, checkpoint])
    assert count[0] >= call, "the failure was never reached"
    for name in ("last", "best"):
        resumed = make_model([metric])
        load_checkpoint(tmp_path / name, resumed)
        assert np.array_equal(resumed.network.weight.numpy(), script.weights[0]), name
    message = str(caught.value)
    assert str(tmp_path / "last") in message
    assert "No space left on device" in message
    assert "\n" not in message

    checkpoint.save()
    assert np.array_equal(saved(tmp_path / "last"), model.network.weight.numpy())
    assert not list(tmp_path.glob(".*.part"))


def test_best_that_cannot_be_copied_leaves_the_one_before(tmp_path, monkeypatch):
    metric = Scripted([0.1, 0.2])
    script, checkpoint = Script(metric), Checkpoint(tmp_path)
    model = make_model([metric])
    model.fit(TRAIN, EVAL, epochs=1, verbose=0, callbacks=[script, checkpoint])
    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(RunFailed, match=r"best: .*No space left"):
        model.fit(TRAIN, EVAL, epochs=1, verbose=0, callbacks=[script, checkpoint])
    assert np.array_equal(saved(tmp_path / "best"), script.weights[0])
    assert np.array_equal(saved(tmp_path / "last"), script.weights[1])
    assert not list(tmp_path.glob(".*.part"))


def test_saving_is_not_waiting_for_data(tmp_path, monkeypatch):
    def save(*_):
        time.sleep(0.2)
        saves.append(clock.step)

    clock, saves = Clock(), []
    history = History(clock=clock)
    checkpoint = Checkpoint(tmp_path, every_steps=1, clock=clock)
    monkeypatch.setattr("resnet_fit.callbacks.checkpoint.save_checkpoint", save)
    make_model().fit(TRAIN, epochs=1, verbose=0, callbacks=[history, checkpoint])
    assert saves[:2] == [1, 2]
    assert clock.epoch_seconds > 0.4
    assert clock.epoch_wait_seconds < 0.2


def test_documents_lie_in_every_checkpoint(tmp_path):
    checkpoint = Checkpoint(tmp_path, documents={"note.txt": "as asked\n"})
    make_model().fit(TRAIN, EVAL, epochs=1, verbose=0, callbacks=[checkpoint])
    for name in ("last", "best"):
        assert (tmp_path / name / "note.txt").read_text() == "as asked\n"
        assert "note.txt" in json.loads((tmp_path / name / "checksums.json").read_text())


def test_the_checkpoint_of_another_network_is_refused(tmp_path):
    """Also where only the number of classes differs: a random head would pass for a trained one."""
    networks = [resnet([1], num_classes=classes, stem="cifar", width=2) for classes in (3, 4)]
    models = [paddle.Model(network) for network in networks]
    for model in models:
        optimizer = paddle.optimizer.SGD(0.1, model.parameters())
        model.prepare(optimizer, paddle.nn.CrossEntropyLoss())
    save_checkpoint(tmp_path / "last", models[0], {"metrics": []})
    load_checkpoint(tmp_path / "last", models[0])
    with pytest.raises(UserError, match=r"2 of another shape \(fc.weight 2x3 for 2x4, fc.bias 3"):
        load_checkpoint(tmp_path / "last", models[1])


def test_names_of_layers_are_taken_as_they_are(tmp_path):
    """Also those that a weights file of torch would have in front of every name."""

    class Wrapped(paddle.nn.Layer):
        def __init__(self):
            super().__init__()
            self.module = paddle.nn.Linear(2, 2)

    model = paddle.Model(Wrapped())
    model.prepare(paddle.optimizer.SGD(0.1, model.parameters()), paddle.nn.CrossEntropyLoss())
    save_checkpoint(tmp_path / "last", model, {"metrics": []})
    load_checkpoint(tmp_path / "last", model)
