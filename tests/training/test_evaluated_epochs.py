"""`training.evaluate_every`: some epochs are evaluated, the last one always."""

from __future__ import annotations

import json

import numpy as np
import paddle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stopping import Stop, stop_after

from resnet_fit import fit, parse_config, resume
from resnet_fit.networks.weights import read_weights
from resnet_fit.training.evaluated_epochs import EvaluatedEpochs, EvaluationFrequency


def rows(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def evaluated(run):
    return {row["epoch"]: row["eval"] for row in rows(run) if "eval" in row}


@pytest.fixture
def sparse(tiny):
    tiny["training"] |= {"epochs": 5, "evaluate_every": 2}
    tiny["data"]["limit"] = 200
    tiny["checkpoint"] = {"keep": 5}
    return tiny


@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 45))
def test_every_so_many_epochs_and_the_last(epochs, every, epoch):
    found = EvaluatedEpochs(epochs, every)
    expected = sorted({*range(every, epochs + 1, every), epochs})
    assert [e for e in range(1, epochs + 1) if e in found] == expected
    assert found.after(epoch) == len([e for e in expected if e > epoch])


@pytest.mark.parametrize(
    ("done", "every"), [(0, 1), (0, 2), (0, 3), (0, 9), (1, 2), (3, 2), (4, 3)]
)
def test_paddle_evaluates_after_those(done, every):
    """`fit` itself, which counts the epochs of each call from 0."""
    model = paddle.Model(paddle.nn.Linear(2, 2))
    model.prepare(
        paddle.optimizer.SGD(0.1, parameters=model.parameters()), paddle.nn.CrossEntropyLoss()
    )
    batch = [np.zeros((4, 2), "float32"), np.zeros((4, 1), "int64")]
    seen = []

    class Watch(paddle.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = done + epoch + 1

        def on_eval_end(self, logs=None):
            seen.append(self.epoch)

    frequency = EvaluationFrequency(EvaluatedEpochs(5, every), done)
    model.fit(
        [batch], [batch], epochs=5 - done, eval_freq=frequency, verbose=0, callbacks=[Watch()]
    )
    assert seen == [e for e in range(done + 1, 6) if e % every == 0 or e == 5]


def test_a_run_has_the_figures_of_those_epochs(sparse, tmp_path):
    run = fit(parse_config(sparse), tmp_path, "sparse")
    every = fit(parse_config(sparse, ["training.evaluate_every=1"]), tmp_path, "every")
    figures = evaluated(every.folder)
    assert evaluated(run.folder) == {epoch: figures[epoch] for epoch in (2, 4, 5)}
    assert [row["train"] for row in rows(run.folder)] == [
        row["train"] for row in rows(every.folder)
    ]
    assert run.summary["last"]["epoch"] == 5
    judged = max((2, 4, 5), key=lambda epoch: figures[epoch]["top1"])
    assert run.summary["best"]["epoch"] == judged
    for epoch in range(1, 6):  # every epoch is saved, evaluated or not
        ours, theirs = (
            read_weights(f / "checkpoints" / f"epoch-000{epoch}" / "model.pdparams")
            for f in (run.folder, every.folder)
        )
        assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)
    best = read_weights(run.folder / "checkpoints" / "best" / "model.pdparams")
    kept = read_weights(run.folder / "checkpoints" / f"epoch-000{judged}" / "model.pdparams")
    assert all(np.array_equal(best[name], kept[name]) for name in kept)


@pytest.mark.parametrize("saves", [1, 2, 3, 4])
def test_stopped_after_any_epoch_and_resumed(sparse, tmp_path, monkeypatch, saves):
    whole = fit(parse_config(sparse), tmp_path, "whole")
    with monkeypatch.context() as patch:
        stop_after(patch, saves)
        with pytest.raises(Stop):
            fit(parse_config(sparse), tmp_path, "stopped")
    assert len(rows(tmp_path / "stopped")) == saves
    run = resume(tmp_path / "stopped")
    assert evaluated(run.folder) == evaluated(whole.folder)
    assert run.summary["best"]["epoch"] == whole.summary["best"]["epoch"]
    kept = {p.name for p in (run.folder / "checkpoints").glob("epoch-*")}
    assert kept == {f"epoch-000{epoch}" for epoch in range(1, 6)}


def test_early_stopping_waits_for_evaluations(sparse, tmp_path):
    """The one after epoch 4 is no better than the one after epoch 2."""
    sparse["callbacks"] = {"early_stopping": {"patience": 1, "min_delta": 1.0}}
    run = fit(parse_config(sparse), tmp_path, "run")
    assert run.summary["stopped_early"]
    assert run.summary["epochs"] == 4
    assert list(evaluated(run.folder)) == [2, 4]


def test_lines_of_epochs(sparse, tmp_path, capsys):
    fit(parse_config(sparse), tmp_path, "run")
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    assert [line.split("  ")[0] for line in lines] == [f"epoch {n}/5" for n in range(1, 6)]
    assert ["eval loss" in line for line in lines] == [False, True, False, True, True]
