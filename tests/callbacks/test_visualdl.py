"""What VisualDL shows is what happened: read back from its records."""

from __future__ import annotations

import io
import os
from contextlib import nullcontext

import numpy as np
import paddle
import pytest
from passing import Time
from PIL import Image
from softmax import EVAL, RATES, TRAIN, by_hand, make_model, mean
from visualdl import LogReader

from resnet_fit import CrossEntropy, classification_metrics
from resnet_fit.callbacks import (
    Clock,
    FlipAverage,
    History,
    NaNSkip,
    VisualDL,
    WeightAverage,
)
from resnet_fit.callbacks.contact_sheet import contact_sheet
from resnet_fit.callbacks.records import RECORDS, Records
from resnet_fit.callbacks.visualdl import MOST_VALUES, _is_among_ten, _some_values

METRICS = ("loss", "top1", "top3")
# Every two of three steps an epoch: a point at the second, and one for the rest.
WINDOWS = [(0, 2), (2, 3), (3, 5), (5, 6)]


def fit(*callbacks, model=None, evaluation=EVAL, epochs=2):
    model = model or make_model()
    model.fit(TRAIN, evaluation, epochs=epochs, verbose=0, callbacks=list(callbacks))
    return model


def reader(folder, part="train"):
    return LogReader(file_path=str(folder / part / RECORDS))


def scalars(folder, part="train"):
    """Every curve by its tag, as ``{step: value}``; two values at one step are refused."""
    records = reader(folder, part)
    curves = {}
    for tag in records.get_tags().get("scalar", ()):
        points = records.get_data("scalar", tag)
        curves[tag] = {point.id: point.value for point in points}
        assert len(curves[tag]) == len(points), tag
    return curves


def test_tags(tmp_path):
    fit(VisualDL(tmp_path))
    epoch = {f"epoch/{name}" for name in METRICS}
    assert set(scalars(tmp_path)) == epoch | {
        *(f"step/{name}" for name in (*METRICS, "learning_rate", "images_per_second")),
        *(f"speed/{name}" for name in ("seconds", "images_per_second", "data_wait")),
    }
    assert set(scalars(tmp_path, "eval")) == epoch | {"speed/seconds"}


def test_training_and_evaluation_lie_on_one_axis_of_steps(tmp_path):
    fit(VisualDL(tmp_path, every_steps=2))
    for part in ("train", "eval"):
        for tag, curve in scalars(tmp_path, part).items():
            assert list(curve) == ([2, 3, 5, 6] if tag.startswith("step/") else [3, 6]), tag


def test_evaluations_beside_it_are_runs_of_their_own(tmp_path):
    """So one chart shows what the weights, their average and mirrored images reach."""
    history = History()
    beside = [WeightAverage(EVAL, decay=0.5), FlipAverage(EVAL)]
    for callback in beside:
        callback.applied = nullcontext  # the network here has neither weights nor images to mirror
    fit(*beside, VisualDL(tmp_path, hyperparameters={"a": 1}), history)
    for part, prefix in (("eval", ""), ("ema", "ema_"), ("flip", "flip_")):
        curves = scalars(tmp_path, part)
        for name in METRICS:
            expected = {row["step"]: row["eval"][prefix + name] for row in history.rows}
            assert curves[f"epoch/{name}"] == pytest.approx(expected, rel=1e-6)
        (record,) = reader(tmp_path, part).get_data("hyper_parameters", "hparam")
        assert {i.name for i in record.hparam.metricInfos} <= set(curves)


@pytest.mark.parametrize("metric", METRICS)
def test_epochs_equal_the_history(tmp_path, metric):
    history = History()
    fit(VisualDL(tmp_path), history)
    for part in ("train", "eval"):
        expected = {row["step"]: row[part][metric] for row in history.rows}
        curve = scalars(tmp_path, part)[f"epoch/{metric}"]
        assert curve == pytest.approx(expected, rel=1e-6)


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
    assert curves["speed/images_per_second"] == pytest.approx({3: 21 / 6})
    assert curves["speed/seconds"] == {3: 6}
    assert curves["speed/data_wait"] == {3: 0}


def test_without_evaluation_there_are_no_such_curves(tmp_path):
    fit(VisualDL(tmp_path), evaluation=None)
    assert [path.name for path in tmp_path.iterdir()] == ["train"]


def test_any_models_metrics_by_their_own_names(tmp_path):
    fit(VisualDL(tmp_path, every_steps=2), model=make_model([paddle.metric.Accuracy()]))
    curves, account = scalars(tmp_path), by_hand(2)
    assert {"step/acc", "epoch/acc"} <= set(curves)
    assert {"epoch/acc", "epoch/loss"} <= set(scalars(tmp_path, "eval"))
    assert curves["epoch/acc"][3] == pytest.approx(mean(account, "top1", 0, 3))
    # Paddle's own loss is the last batch's, and is shown as such.
    expected = {step: account.steps[step - 1]["loss"].mean() for step in (2, 3, 5, 6)}
    assert curves["step/loss"] == pytest.approx(expected, rel=1e-4)


def test_config_and_hyperparameters(tmp_path):
    """A tag for each section, and no dots in names: the page reads them as nesting."""
    settings = {"optimizer.learning_rate": 0.1, "data/batch_size": 8, "nesterov": True, "by": None}
    config = {"model": {"depth": 18, "freeze": ["a", "b"]}, "seeds": [1, 2]}
    fit(VisualDL(tmp_path, config=config, hyperparameters=settings))
    records = reader(tmp_path)
    texts = {
        tag: [t.text.encoded_text_string for t in records.get_data("text", tag)]
        for tag in records.get_tags()["text"]
    }
    assert texts == {
        "config/model": ["depth: 18 | freeze: [a, b]"],
        "config/seeds": ["[1, 2]"],
    }
    (record,) = reader(tmp_path, "eval").get_data("hyper_parameters", "hparam")
    shown = {i.name: getattr(i, i.WhichOneof("type")) for i in record.hparam.hparamInfos}
    assert shown == {
        "optimizer/learning_rate": pytest.approx(0.1),
        "data/batch_size": 8,
        "nesterov": "True",
        "by": "None",
    }
    compared = {i.name for i in record.hparam.metricInfos}
    assert compared == {f"epoch/{name}" for name in METRICS}
    assert compared <= set(scalars(tmp_path, "eval"))


def test_two_fits_into_one_folder_make_one_history(tmp_path, capsys):
    """The server reads one file of a folder: the newest."""
    clock = Clock()
    told = {"config": {"a": {"b": 1}}, "hyperparameters": {"a": 1}, "clock": clock}
    model = fit(VisualDL(tmp_path, **told), epochs=2)
    fit(VisualDL(tmp_path, **told), model=model)
    for part in ("train", "eval"):
        assert list((tmp_path / part).iterdir()) == [tmp_path / part / RECORDS]
    curves, account = scalars(tmp_path, "eval"), by_hand(4)
    assert list(curves["epoch/loss"]) == [3, 6, 9, 12]
    expected = [float(e["loss"].mean()) for e in account.evaluations]
    assert list(curves["epoch/loss"].values()) == pytest.approx(expected, rel=1e-4)
    assert len(reader(tmp_path).get_data("text", "config/a")) == 1
    assert len(reader(tmp_path, "eval").get_data("hyper_parameters", "hparam")) == 1
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
    assert list(scalars(tmp_path, "eval")["epoch/loss"]) == [3]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_record_that_cannot_be_written_ends_the_training_and_names_the_file(tmp_path):
    """VisualDL itself prints a warning and goes on, with a file that is damaged from there on."""
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / RECORDS).symlink_to("/dev/full")
    callback = VisualDL(tmp_path)
    with pytest.raises(OSError, match="No space left") as caught:
        fit(callback)
    callback.close()
    assert caught.value.filename == str(tmp_path / "train" / RECORDS)
    assert callback.clock.epoch == 1


# --- images and histograms ------------------------------------------------------------


def make_image_model():
    """A convolution and a linear layer on digits' worth of pixels."""
    network = paddle.nn.Sequential(
        paddle.nn.Conv2D(1, 2, 3), paddle.nn.Flatten(), paddle.nn.Linear(2 * 6 * 6, 3)
    )
    model = paddle.Model(network)
    optimizer = paddle.optimizer.SGD(0.1, parameters=network.parameters())
    model.prepare(optimizer, CrossEntropy(), classification_metrics(CrossEntropy(), 3))
    return model


def grey_batches(count=2, size=5):
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (count, size, 1, 8, 8)).astype(np.uint8)
    images = (grey / 255).astype("float32") / 0.5 - 1  # as mean 0.5 and deviation 0.5 make them
    return grey, [[batch, np.arange(size) % 3] for batch in images]


def test_images_are_those_the_network_sees_of_ten_epochs_at_most(tmp_path):
    grey, batches = grey_batches()
    untouched = [images.copy() for images, _ in batches]
    callback = VisualDL(tmp_path, normalisation=((0.5,), (0.5,)))
    make_image_model().fit(batches, epochs=9, verbose=0, callbacks=[callback])
    images = reader(tmp_path).get_data("image", "batch")
    assert [image.id for image in images] == [1, 3, 7, 15]  # the first steps of epochs 1, 2, 4, 8
    assert all(
        np.array_equal(*pair) for pair in zip(untouched, [b[0] for b in batches], strict=True)
    )
    shown = np.asarray(Image.open(io.BytesIO(images[0].image.encoded_image_string)))[..., 0]
    factor = 256 // 27  # three in a row of 8 pixels and lines between them, enlarged
    cells = [
        shown[y : y + 8 * factor, x : x + 8 * factor]
        for y in (0, 9 * factor)
        for x in (0, 9 * factor, 18 * factor)
    ]
    for cell, image in zip(cells, grey[0], strict=False):
        assert np.array_equal(cell[::factor, ::factor], image[0])
    assert not _watched(callback)


def test_so_many_epochs_have_images():
    assert sum(map(_is_among_ten, range(2000))) == 10


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_images_of_an_unknown_range_are_stretched(dtype):
    images = np.arange(2 * 3 * 300 * 300).reshape(2, 3, 300, 300) % 200
    sheet = contact_sheet(paddle.to_tensor(images.astype(dtype)))
    assert sheet.shape == (601, 300, 3) or sheet.shape == (300, 601, 3)
    assert sheet.dtype == np.uint8
    assert (sheet.min(), sheet.max()) == ((0, 255) if dtype == "float32" else (0, 199))


@pytest.mark.parametrize("shape", [(4, 7), (4, 2, 8, 8), (0, 3, 8, 8)])
def test_what_is_no_image_is_left_out(shape):
    assert contact_sheet(np.zeros(shape, np.float32)) is None


def test_histograms_are_of_weights_and_of_the_last_gradients(tmp_path):
    _, batches = grey_batches()
    weights, gradients = [], []

    class Note(paddle.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            weights.append(self.model.network[0].weight.numpy())

    model = make_image_model()
    clear = model.network.clear_gradients

    def noting():
        gradients.append(model.network[0].weight.grad.numpy())
        clear()

    model.network.clear_gradients = noting
    callback = VisualDL(tmp_path)
    model.fit(batches, epochs=2, verbose=0, callbacks=[callback, Note()])
    records = reader(tmp_path)
    assert sorted(records.get_tags()["histogram"]) == sorted(
        f"{layer}/weight{what}" for layer in (0, 2) for what in ("", ".gradient")
    )
    for tag, expected in (("0/weight", weights), ("0/weight.gradient", gradients[1::2])):
        found = records.get_data("histogram", tag)
        assert [record.id for record in found] == [2, 4]
        for record, values in zip(found, expected, strict=True):
            counts, edges = np.histogram(values.astype(np.float64), bins=30)
            assert np.array_equal(record.histogram.hist, counts)
            assert record.histogram.bin_edges == pytest.approx(edges)
    assert not _watched(callback)
    assert model.network.clear_gradients is noting


def _watched(callback):
    """Whether anything of the model is still replaced."""
    own = vars(callback.model)
    return callback._watched or "train_batch" in own


def test_large_tensors_are_sampled_evenly():
    values = paddle.arange(9 * 64 * 1000, dtype="float32").reshape([1000, 64, 3, 3])
    sample = _some_values(values)
    assert MOST_VALUES / 2 < len(sample) < 2 * MOST_VALUES
    assert set((sample % 9).tolist()) == set(range(9))  # all places of a kernel
    assert sample.mean() == pytest.approx(float(values.mean()), rel=1e-3)


@pytest.mark.parametrize(
    ("values", "count"),
    [([np.nan, 1, 2, np.inf], 2), ([3.0, 3.0], 2), ([-3e38, 3e38], 2), ([np.nan], 0), ([], 0)],
)
def test_numbers_that_are_not_finite_do_not_count(tmp_path, values, count):
    records = Records(tmp_path / "train")
    records.add_histogram("h", np.array(values, np.float32), 1)
    records.close()
    found = reader(tmp_path).get_data("histogram", "h")
    assert sum(sum(record.histogram.hist) for record in found) == count


@pytest.mark.filterwarnings("ignore:epoch")
def test_a_step_left_out_is_in_no_window(tmp_path):
    """Its images are in no mean, so that they may not count in the means' weights either."""
    poison = [np.full((8, 3), np.nan, "float32"), np.zeros(8, "int64")]
    for name, batches in (("with", [TRAIN[0], poison, TRAIN[1]]), ("without", TRAIN[:2])):
        clock = Clock()
        callbacks = [NaNSkip(clock=clock), VisualDL(tmp_path / name, every_steps=1, clock=clock)]
        model = make_model()
        model._optimizer._learning_rate = 0.1  # by steps it would differ
        model.fit(batches, epochs=1, verbose=0, callbacks=callbacks)
    seen, expected = (scalars(tmp_path / name)["step/loss"] for name in ("with", "without"))
    assert list(seen) == [1, 3]
    assert list(seen.values()) == pytest.approx(list(expected.values()), rel=1e-6)
