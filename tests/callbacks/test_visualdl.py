"""What VisualDL shows is what happened: read back from its records."""

from __future__ import annotations

import os

import paddle
import pytest
from passing import Time
from softmax import EVAL, RATES, TRAIN, by_hand, make_model, mean
from visualdl import LogReader

from resnet_fit.callbacks import Clock, History, VisualDL
from resnet_fit.callbacks.visualdl import RECORDS

METRICS = ("loss", "top1", "top3")
# Every two of three steps an epoch: a point at the second, and one for the rest.
WINDOWS = [(0, 2), (2, 3), (3, 5), (5, 6)]


def fit(*callbacks, model=None, evaluation=EVAL, epochs=2):
    model = model or make_model()
    model.fit(TRAIN, evaluation, epochs=epochs, verbose=0, callbacks=list(callbacks))
    return model


def scalars(folder):
    """Every curve by its tag, as ``{step: value}``; two values at one step are refused."""
    reader = LogReader(file_path=str(folder / RECORDS))
    curves = {}
    for tag in reader.get_tags()["scalar"]:
        points = reader.get_data("scalar", tag)
        curves[tag] = {point.id: point.value for point in points}
        assert len(curves[tag]) == len(points), tag
    return curves


def test_tags(tmp_path):
    fit(VisualDL(tmp_path))
    step = [*METRICS, "learning_rate", "images_per_second"]
    epoch = [f"{part}_{name}" for part in ("train", "eval") for name in (*METRICS, "seconds")]
    assert set(scalars(tmp_path)) == {
        *(f"step/{name}" for name in step),
        *(f"epoch/{name}" for name in (*epoch, "images_per_second", "data_wait")),
    }


def test_training_and_evaluation_lie_on_one_axis_of_steps(tmp_path):
    fit(VisualDL(tmp_path, every_steps=2))
    for tag, curve in scalars(tmp_path).items():
        assert list(curve) == ([3, 6] if tag.startswith("epoch/") else [2, 3, 5, 6]), tag


@pytest.mark.parametrize("metric", METRICS)
def test_epochs_equal_the_history(tmp_path, metric):
    history = History()
    fit(VisualDL(tmp_path), history)
    curves = scalars(tmp_path)
    for part in ("train", "eval"):
        expected = {row["step"]: row[part][metric] for row in history.rows}
        assert curves[f"epoch/{part}_{metric}"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("metric", METRICS)
def test_a_step_point_is_the_mean_since_the_last_one(tmp_path, metric):
    account = by_hand(2)
    fit(VisualDL(tmp_path, every_steps=2))
    expected = {last: mean(account, metric, first, last) for first, last in WINDOWS}
    assert scalars(tmp_path)[f"step/{metric}"] == pytest.approx(expected, rel=1e-4)


def test_sharing_a_clock_changes_nothing(tmp_path):
    """Whoever is told of an epoch first moves it on for all."""
    clock = Clock()
    fit(VisualDL(tmp_path / "alone", every_steps=2))
    fit(History(clock=clock), VisualDL(tmp_path / "shared", every_steps=2, clock=clock))
    alone, shared = (scalars(tmp_path / name) for name in ("alone", "shared"))
    for tag in alone:
        assert list(shared[tag]) == list(alone[tag]), tag
        if not tag.endswith(("second", "seconds", "data_wait")):
            assert shared[tag] == alone[tag], tag


def test_learning_rate_is_the_one_the_step_used(tmp_path):
    fit(VisualDL(tmp_path, every_steps=1))
    expected = {step: RATES[(step - 1) % len(RATES)] for step in range(1, 7)}
    assert scalars(tmp_path)["step/learning_rate"] == expected


def test_images_per_second_by_the_clock(tmp_path, monkeypatch):
    class Slow(paddle.callbacks.Callback):
        """Each step takes as many seconds as its number says."""

        def on_train_batch_end(self, step, logs=None):
            time.now += step + 1

    time = Time()
    monkeypatch.setattr("resnet_fit.callbacks.clock.time", time)
    fit(Slow(), VisualDL(tmp_path, every_steps=2), epochs=1)
    curves = scalars(tmp_path)
    assert curves["step/images_per_second"] == pytest.approx({2: 16 / 3, 3: 5 / 3})
    assert curves["epoch/images_per_second"] == pytest.approx({3: 21 / 6})
    assert curves["epoch/train_seconds"] == {3: 6}
    assert curves["epoch/data_wait"] == {3: 0}


def test_without_evaluation_there_are_no_such_curves(tmp_path):
    fit(VisualDL(tmp_path), evaluation=None)
    assert not [tag for tag in scalars(tmp_path) if "eval" in tag]


def test_any_models_metrics_by_their_own_names(tmp_path):
    fit(VisualDL(tmp_path, every_steps=2), model=make_model([paddle.metric.Accuracy()]))
    curves, account = scalars(tmp_path), by_hand(2)
    assert {"step/acc", "epoch/train_acc", "epoch/eval_acc", "epoch/eval_loss"} <= set(curves)
    assert curves["epoch/train_acc"][3] == pytest.approx(mean(account, "top1", 0, 3))
    # Paddle's own loss is the last batch's, and is shown as such.
    expected = {step: account.steps[step - 1]["loss"].mean() for step in (2, 3, 5, 6)}
    assert curves["step/loss"] == pytest.approx(expected, rel=1e-4)


def test_config_and_hyperparameters(tmp_path):
    settings = {"optimizer.learning_rate": 0.1, "data.batch_size": 8, "nesterov": True, "by": None}
    fit(VisualDL(tmp_path, config="model: {depth: 18}", hyperparameters=settings))
    reader = LogReader(file_path=str(tmp_path / RECORDS))
    (text,) = reader.get_data("text", "config")
    assert "model: {depth: 18}" in text.text.encoded_text_string
    (record,) = reader.get_data("hyper_parameters", "hparam")
    shown = {i.name: getattr(i, i.WhichOneof("type")) for i in record.hparam.hparamInfos}
    assert shown == {
        "optimizer.learning_rate": pytest.approx(0.1),
        "data.batch_size": 8,
        "nesterov": "True",
        "by": "None",
    }
    compared = {i.name for i in record.hparam.metricInfos}
    assert compared == {f"epoch/eval_{name}" for name in METRICS}
    assert compared <= set(scalars(tmp_path))


def test_two_fits_into_one_folder_make_one_history(tmp_path, capsys):
    """The server reads one file of a folder: the newest."""
    clock = Clock()
    model = fit(VisualDL(tmp_path, config="a: 1", hyperparameters={"a": 1}, clock=clock), epochs=2)
    fit(VisualDL(tmp_path, config="a: 1", hyperparameters={"a": 1}, clock=clock), model=model)
    assert list(tmp_path.iterdir()) == [tmp_path / RECORDS]
    curves, account = scalars(tmp_path), by_hand(4)
    assert list(curves["epoch/eval_loss"]) == [3, 6, 9, 12]
    expected = [float(e["loss"].mean()) for e in account.evaluations]
    assert list(curves["epoch/eval_loss"].values()) == pytest.approx(expected, rel=1e-4)
    reader = LogReader(file_path=str(tmp_path / RECORDS))
    assert len(reader.get_data("text", "config")) == 1
    assert len(reader.get_data("hyper_parameters", "hparam")) == 1
    assert not capsys.readouterr().out


def test_evaluations_are_on_the_disk_when_a_run_is_killed(tmp_path):
    class Killed(Exception):
        pass

    class Kill(paddle.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise Killed

    with pytest.raises(Killed):
        fit(VisualDL(tmp_path), Kill())
    assert list(scalars(tmp_path)["epoch/eval_loss"]) == [3]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_record_that_cannot_be_written_ends_the_training_and_names_the_file(tmp_path):
    """VisualDL itself prints a warning and goes on, with a file that is damaged from there on."""
    (tmp_path / RECORDS).symlink_to("/dev/full")
    callback = VisualDL(tmp_path)
    with pytest.raises(OSError, match="No space left") as caught:
        fit(callback)
    callback.close()
    assert caught.value.filename == str(tmp_path / RECORDS)
    assert callback.clock.epoch == 1
