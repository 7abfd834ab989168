"""A whole run: what it computes, what it writes, and that it says the same twice."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from contextlib import contextmanager

import numpy as np
import paddle
import pytest
from paddle import nn

from resnet_fit import fit, load_config, open_run, parse_config, resume
from resnet_fit.backends import use_backend
from resnet_fit.callbacks import Checkpoint, SlowData
from resnet_fit.cli import main
from resnet_fit.data.copies import Copies
from resnet_fit.data.dataset import ArrayDataset, FileDataset
from resnet_fit.data.loading import ArrayLoader, FileLoader
from resnet_fit.data.make_loaders import make_loaders
from resnet_fit.data.transforms import CenterCrop
from resnet_fit.errors import RunFailed, UserError
from resnet_fit.networks import load_weights
from resnet_fit.runs.callbacks import faster_data
from resnet_fit.runs.experiment import make_network, prepare, seed_everything


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    from conftest import TINY

    return fit(parse_config(TINY), tmp_path_factory.mktemp("runs"), "first")


def test_folder_holds_what_the_readme_says(finished):
    assert {p.name for p in finished.folder.iterdir()} == {
        "config.yaml",
        "data.json",
        "environment.json",
        "metrics.jsonl",
        "run.log",
        "summary.json",
        "visualdl",
        "checkpoints",
        ".lock",
    }
    assert {"best", "last"} <= {p.name for p in (finished.folder / "checkpoints").iterdir()}


def test_metrics_and_summary_agree(finished):
    lines = (finished.folder / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    summary = json.loads((finished.folder / "summary.json").read_text())
    assert [row["epoch"] for row in rows] == [1, 2]
    assert [row["step"] for row in rows] == [23, 46]
    assert summary["last"] == rows[-1]
    assert summary["best"] == max(rows, key=lambda row: row["eval"]["top1"])
    assert summary["epochs"] == 2
    assert summary["parameters"] == 5_122
    assert (summary["train_images"], summary["eval_images"]) == (1437, 360)
    assert summary["judged_on"] == "test"
    assert summary["environment"]["device"] == "cpu"
    assert summary["images_per_second"] > 0
    assert rows[1]["train"]["loss"] < rows[0]["train"]["loss"]


def test_resolved_config_runs_again_and_gives_the_same(finished, tmp_path):
    again = fit(load_config(finished.folder / "config.yaml"), tmp_path, "again")
    for ours, theirs in zip(again.model.parameters(), finished.model.parameters(), strict=True):
        assert np.array_equal(ours.numpy(), theirs.numpy())
    assert again.summary["last"]["eval"] == finished.summary["last"]["eval"]


def test_another_seed_gives_another_run(finished, tiny, tmp_path):
    tiny["training"]["seed"] = 1
    other = fit(parse_config(tiny), tmp_path, "other")
    assert other.summary["last"]["train"]["loss"] != finished.summary["last"]["train"]["loss"]


def test_equals_a_loop_written_by_hand(finished, tiny):
    """Same data, start and backend: losses, metrics and weights of a plain Paddle loop.

    With another backend rounding alone moves an epoch's loss by 1e-4: a ReLU here or there decides
    otherwise. What backends differ in is tested with them.
    """
    config = parse_config(tiny)
    seed_everything(config.training.seed)
    loaders = make_loaders(config)
    network = make_network(config, 10, 1)
    use_backend(network, finished.summary["environment"]["backend"])
    steps, epochs = len(loaders.train), config.training.epochs
    scheduler = paddle.optimizer.lr.LambdaDecay(
        0.1, lambda step: config.schedule.share(step / steps, epochs)
    )
    optimizer = paddle.optimizer.Momentum(scheduler, 0.9, network.parameters())
    criterion = paddle.nn.CrossEntropyLoss(reduction="none")
    for line in (finished.folder / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        network.train()
        losses, right = [], 0
        for images, labels in loaders.train:
            logits = network(paddle.to_tensor(images))
            loss = criterion(logits, paddle.to_tensor(labels))
            loss.mean().backward()
            optimizer.step()
            optimizer.clear_grad()
            row_rate = scheduler()
            scheduler.step()
            losses.extend(loss.numpy().ravel().tolist())
            right += int((logits.numpy().argmax(1) == labels).sum())
        assert row["train"]["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
        assert row["train"]["top1"] == right / 1437
        assert row["learning_rate"] == pytest.approx(row_rate)
    for name, value in finished.model.network.state_dict().items():
        ours = network.state_dict()[name].numpy()
        np.testing.assert_allclose(value.numpy(), ours, rtol=1e-4, atol=1e-6, err_msg=name)


def test_checkpoints_open_in_paddle_and_here(finished, tiny):
    config = parse_config(tiny)
    network = make_network(config, 10, 1)
    last = finished.folder / "checkpoints" / "last"
    paddle.Model(network).load(str(last / "model"))
    trained = finished.model.network.state_dict()
    for name, value in network.state_dict().items():
        assert np.array_equal(value.numpy(), trained[name].numpy()), name
    other = make_network(config, 10, 1)
    load_weights(other, last / "model.pdparams")
    for name, value in other.state_dict().items():
        assert np.array_equal(value.numpy(), trained[name].numpy()), name


def test_validation_part_judges_epochs_and_the_test_set_is_used_once(tiny, tmp_path):
    tiny["data"]["validation"] = 0.2
    summary = fit(parse_config(tiny), tmp_path, "held-out").summary
    assert summary["judged_on"] == "validation"
    assert (summary["train_images"], summary["eval_images"]) == (1150, 287)
    assert set(summary["test"]) == {"loss", "top1", "top5"}
    assert summary["test"]["top1"] != summary["last"]["eval"]["top1"]


def test_a_run_is_never_overwritten(finished, tiny):
    before = (finished.folder / "summary.json").read_bytes()
    with pytest.raises(UserError, match="exists already"):
        fit(parse_config(tiny), finished.folder.parent, "first")
    assert (finished.folder / "summary.json").read_bytes() == before


def test_a_run_that_could_not_begin_leaves_its_name_free(tiny, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "visualdl", None)
        with pytest.raises(RunFailed, match="VisualDL cannot be imported"):
            fit(parse_config(tiny), tmp_path, "run")
    assert not (tmp_path / "run").exists()
    assert fit(parse_config(tiny), tmp_path, "run").folder == tmp_path / "run"


def test_runs_that_begin_together_have_names_of_their_own(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(time, "strftime", lambda _: "now")
    config = parse_config(tiny, ["training.epochs=1", "callbacks.visualdl=null"])
    folders = [fit(config, tmp_path).folder.name for _ in range(3)]
    assert folders == ["now", "now-2", "now-3"]
    assert fit(config, tmp_path, "now", numbered=True).folder.name == "now-4"
    with pytest.raises(UserError, match="exists already"):
        fit(config, tmp_path, "now")


def test_a_tilde_is_the_home_folder(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    config = parse_config(tiny, ["training.epochs=1", "callbacks.visualdl=null"])
    assert fit(config, "~/runs", "a").folder == tmp_path / "runs/a"
    assert open_run("~/runs/a").classes == tuple("0123456789")
    assert resume("~/runs/a", ["training.epochs=2"]).summary["epochs"] == 2
    assert main(["--resume", "~/runs/a", "--set", "training.epochs=3", "--dry-run"]) == 0
    assert main(["compare", "~/runs"]) == 0
    for arguments, words in (
        (["evaluate", "~/runs/a", "--checkpoint", "bset"], "no checkpoint 'bset'"),
        (["export", "~/runs/a", "--checkpoint", "bset"], "no checkpoint 'bset'"),
        (["view", "~/runs"], "no VisualDL records"),
        (["profile", "--config", "x", "--output", "~/runs/a/run.log"], "run.log is a file"),
    ):
        capsys.readouterr()
        assert main(arguments) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "~").exists()


def test_a_network_for_images_that_are_not_square(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (40, 1, 6, 10), np.uint8)
    data = (ArrayDataset(images, np.arange(40) % 2, ("cat", "dog")),) * 2
    config = parse_config(
        {
            "model": {"name": "given"},
            "data": {"name": "given", "batch_size": 8},
            "augmentation": {"train": ["normalize"]},
            "optimizer": {"name": "sgd", "learning_rate": 0.1},
            "training": {"epochs": 1},
        }
    )
    network = nn.Sequential(nn.Conv2D(1, 2, 3), nn.Flatten(), nn.Linear(2 * 4 * 8, 2))
    run = fit(config, tmp_path, "oblong", network=network, data=data)
    assert run.summary["macs"] == 2 * 9 * 4 * 8 + 2 * 4 * 8 * 2


def test_a_callback_may_end_the_training_before_the_first_evaluation(tiny, tmp_path):
    class Enough(paddle.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = True

    config = parse_config(tiny, ["training.epochs=4", "training.evaluate_every=2"])
    run = fit(config, tmp_path, "run", callbacks=[Enough()])
    assert run.summary["last"]["epoch"] == 1
    assert "eval" not in run.summary["last"]


def test_accumulated_batches_are_averaged_not_summed(tiny):
    """Two batches of 718 step exactly like one of 1436, in a net without batch norm."""
    tiny["augmentation"] = {"train": ["normalize"]}
    tiny["schedule"] = {"name": "constant"}
    moves = []
    for batch, accumulate in ((1436, 1), (718, 2)):
        tiny["data"] |= {"batch_size": batch, "drop_last": True}
        tiny["training"] |= {"accumulate": accumulate}
        config = parse_config(tiny)
        seed_everything(0)
        loaders = make_loaders(config)
        network = paddle.nn.Sequential(paddle.nn.Flatten(), paddle.nn.Linear(64, 10))
        before = network[1].weight.numpy()
        model = prepare(config, network, loaders)
        model.fit(loaders.train, epochs=1, accumulate_grad_batches=accumulate, verbose=0)
        moves.append(network[1].weight.numpy() - before)
    assert np.abs(moves[0]).max() > 0.01
    np.testing.assert_allclose(moves[1], moves[0], atol=1e-6)


def test_learning_rate_follows_the_batch_size(tiny):
    tiny["optimizer"]["reference_batch_size"] = 256
    for accumulate in (1, 8):
        config = parse_config(tiny, [f"training.accumulate={accumulate}"])
        model = prepare(config, paddle.nn.Linear(2, 10), make_loaders(config))
        full = 0.1 * 64 * accumulate / 256
        assert model._optimizer.get_lr() == pytest.approx(full * config.schedule.start)


def test_monitor_must_exist_before_the_first_epoch(tmp_path):
    model = paddle.Model(paddle.nn.Linear(2, 2))
    optimizer = paddle.optimizer.SGD(parameters=model.parameters())
    model.prepare(optimizer, paddle.nn.CrossEntropyLoss())
    batch = [np.zeros((4, 2), "float32"), np.zeros(4, "int64")]
    with pytest.raises(UserError, match=r"no metric 'top1'.*This model has: loss"):
        model.fit([batch], verbose=0, callbacks=[Checkpoint(tmp_path, monitor="top1")])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("precision", "backend", "message"),
    [
        ("bfloat16", "paddle", "training.precision: received bfloat16.*float32"),
        ("float16", "onednn", "training.precision: received float16"),
    ],
)
def test_mixed_precision_is_refused_where_it_does_nothing(
    tiny, tmp_path, precision, backend, message
):
    tiny["training"] |= {"precision": precision, "device": "cpu", "backend": backend}
    with pytest.raises(UserError, match=message):
        fit(parse_config(tiny), tmp_path, "half")
    assert not list(tmp_path.iterdir())


@pytest.mark.bfloat16
def test_bfloat16_on_a_cpu_learns_as_float32_does(finished, tiny, tmp_path):
    tiny["training"] |= {"precision": "bfloat16", "backend": "onednn"}
    last = fit(parse_config(tiny), tmp_path, "bfloat16").summary["last"]
    exact = finished.summary["last"]
    assert last["train"]["loss"] == pytest.approx(exact["train"]["loss"], rel=0.05)
    assert last["train"]["loss"] != exact["train"]["loss"]


def test_advice_is_what_applies_to_the_data(tmp_path, monkeypatch):
    monkeypatch.setattr("resnet_fit.runs.callbacks.usable_cores", lambda: 4)
    arrays = ArrayDataset(np.zeros((4, 3, 8, 8), np.uint8), np.zeros(4, int), ("a",))
    files = FileDataset(("1.jpg",) * 4, np.zeros(4, int), ("a",))
    assert faster_data(ArrayLoader(arrays, 2)) == (
        "try operations in augmentation.train that cost less"
    )
    assert faster_data(FileLoader(files, 2, [CenterCrop(8)], workers=2)) == (
        "try data.workers=4 instead of 2, or decoded images kept in a file, data.cache, or "
        "operations in augmentation.train that cost less"
    )
    cached = dataclasses.replace(files, copies=Copies("pixels.bin", np.zeros((4, 3), int)))
    assert faster_data(FileLoader(cached, 2, [CenterCrop(8)], workers=4)) == faster_data(
        ArrayLoader(arrays, 2)
    )


def test_a_run_that_waits_for_its_data_is_told(tiny, tmp_path, monkeypatch):
    make = ArrayLoader._source

    def slowly(self, epoch, first):
        @contextmanager
        def source():
            with make(self, epoch, first) as batches:
                yield lambda batch: (time.sleep(0.1), batches(batch))[1]

        return source()

    monkeypatch.setattr(ArrayLoader, "_source", slowly)
    monkeypatch.setattr(SlowData.__init__, "__defaults__", ("", 0.2, 0.3, None))
    config = parse_config(tiny, ["data.limit=320", "training.epochs=1"])
    with pytest.warns(UserWarning, match=r"data are the bottleneck: .*: try operations in augment"):
        run = fit(config, tmp_path, "run")
    assert run.summary["last"]["data_wait"] > 0.2
