"""The rows of a history are what happened, in memory and in the file."""

from __future__ import annotations

import json

import numpy as np
import paddle
import pytest
from softmax import EVAL, RATES, TRAIN, by_hand, make_model, mean

from resnet_fit.callbacks import Clock, History
from resnet_fit.callbacks.history import best_row


def read(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def fit(model, history, evaluation=EVAL, **options):
    model.fit(TRAIN, evaluation, verbose=0, callbacks=[history], **options)


@pytest.mark.parametrize("name", ["loss", "top1", "top3"])
def test_metrics_are_means_over_all_samples(name):
    account, history = by_hand(3), History()
    fit(make_model(), history, epochs=3)
    trained = [row["train"][name] for row in history.rows]
    judged = [row["eval"][name] for row in history.rows]
    assert trained == pytest.approx([mean(account, name, e, e + 3) for e in (0, 3, 6)], rel=1e-5)
    assert judged == pytest.approx([e[name].mean() for e in account.evaluations], rel=1e-5)


def test_a_row_tells_where_and_how_fast(tmp_path):
    history = History(tmp_path / "logs" / "metrics.jsonl")
    fit(make_model(), history, epochs=2)
    assert [row["epoch"] for row in history.rows] == [1, 2]
    assert [row["step"] for row in history.rows] == [3, 6]
    assert [row["learning_rate"] for row in history.rows] == [RATES[2], RATES[5 % len(RATES)]]
    assert all(row["images_per_second"] > 0 for row in history.rows)
    assert all(0 < row["data_wait"] < 1 for row in history.rows)
    assert 0 < history.rows[0]["seconds"] <= history.rows[1]["seconds"]
    assert read(history.file) == history.rows


def test_without_evaluation_there_is_none_in_the_row(tmp_path):
    history = History(tmp_path / "metrics.jsonl")
    fit(make_model(), history, evaluation=None, epochs=2)
    assert [set(row) & {"train", "eval"} for row in read(history.file)] == [{"train"}] * 2


def test_an_evaluation_belongs_to_its_epoch(tmp_path):
    history = History(tmp_path / "metrics.jsonl")
    fit(make_model(), history, epochs=4, eval_freq=2)
    assert ["eval" in row for row in read(history.file)] == [True, False, True, False]


def test_a_later_evaluation_on_other_data_changes_no_row():
    history, model = History(), make_model()
    fit(model, history, epochs=1)
    before = json.dumps(history.rows)
    model.evaluate(TRAIN, verbose=0, callbacks=[history])
    assert json.dumps(history.rows) == before


def test_any_models_metrics_by_their_own_names():
    """Paddle's own loss is the last batch's; a history says what the model says."""
    account, history = by_hand(1), History()
    fit(make_model([paddle.metric.Accuracy((1, 3))]), history, epochs=1)
    train, judged = history.rows[0]["train"], history.rows[0]["eval"]
    assert set(train) == set(judged) == {"loss", "acc_top1", "acc_top3"}
    assert train["loss"] == pytest.approx(account.steps[2]["loss"].mean(), rel=1e-5)
    assert judged["acc_top3"] == pytest.approx(account.evaluations[0]["top3"].mean())


def test_a_model_without_metrics():
    history = History()
    fit(make_model([]), history, epochs=1)
    assert set(history.rows[0]["train"]) == {"loss"}


def test_a_second_fit_adds_rows(tmp_path):
    history = History(tmp_path / "metrics.jsonl", Clock())
    model = make_model()
    fit(model, history, epochs=2)
    fit(model, history, epochs=1)
    assert [(row["epoch"], row["step"]) for row in read(history.file)] == [(1, 3), (2, 6), (3, 9)]
    seconds = [row["seconds"] for row in history.rows]
    assert seconds == sorted(seconds)


def test_the_file_is_whole_when_writing_fails(tmp_path, monkeypatch):
    history, model = History(tmp_path / "metrics.jsonl"), make_model()
    fit(model, history, epochs=1)
    before = read(history.file)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space left"):
        fit(model, history, epochs=1)
    assert read(history.file) == before
    assert list(tmp_path.iterdir()) == [history.file]


def test_what_json_does_not_have_is_null(tmp_path):
    history, model = History(tmp_path / "metrics.jsonl"), make_model()
    fit(model, history, epochs=1)
    history.rows[0]["eval"] |= {"top1": float("nan"), "top3": float("inf")}
    history._write()
    evaluated = read(history.file)[0]["eval"]
    assert (evaluated["top1"], evaluated["top3"]) == (None, None)
    resumed = History(tmp_path / "metrics.jsonl")
    resumed.set_state_dict(history.state_dict())
    assert best_row(resumed.rows, "top1") is None


def test_best_row():
    values = [0.5, 0.75, float("nan"), 0.75, 0.25]
    rows = [{"epoch": i, "eval": {"top1": v, "ema_loss": v}} for i, v in enumerate(values)]
    rows.append({"epoch": 5})
    assert best_row(rows, "top1")["epoch"] == 1
    assert best_row(rows, "ema_loss")["epoch"] == 4
    assert best_row(rows, "top5") is None
    assert best_row([], "top1") is None


def test_best_row_of_a_start_without_a_number():
    rows = [{"epoch": i, "eval": {"loss": v}} for i, v in enumerate([np.nan, 2.0, 1.0])]
    assert best_row(rows, "loss")["epoch"] == 2
