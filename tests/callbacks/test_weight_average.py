"""The averaged weights are the stated sum, judged beside the weights, and never in their place."""

from __future__ import annotations

import numpy as np
import paddle
import pytest
from softmax import EVAL, TRAIN, make_model

from resnet_fit import fit, parse_config
from resnet_fit.callbacks import History, WeightAverage
from resnet_fit.errors import UserError


class Notes(paddle.callbacks.Callback):
    """The weights after each step."""

    def __init__(self):
        super().__init__()
        self.weights = []

    def on_train_batch_end(self, step, logs=None):
        self.weights.append(self.model.network.weight.numpy().copy())


@pytest.mark.parametrize("warm_up", [True, False])
def test_it_is_the_sum_of_its_definition(warm_up):
    model, notes = make_model(), Notes()
    average = model.network.weight.numpy().astype("float64")
    callback = WeightAverage(decay=0.6, warm_up=warm_up)
    model.fit(TRAIN, epochs=3, verbose=0, callbacks=[notes, callback])
    assert len(notes.weights) == 9
    for n, weight in enumerate(notes.weights, 1):
        decay = min(0.6, (1 + n) / (10 + n)) if warm_up else 0.6
        average = decay * average + (1 - decay) * weight
    assert np.allclose(callback.average["weight"].numpy(), average, rtol=1e-5)
    assert np.array_equal(model.network.weight.numpy(), notes.weights[-1])


def test_it_counts_optimizer_steps_not_batches():
    callback = WeightAverage(decay=0.5)
    make_model().fit(TRAIN, epochs=2, verbose=0, accumulate_grad_batches=2, callbacks=[callback])
    assert callback.updates == 4  # after batches 2 and 3 of each epoch, as `fit` does


def test_it_is_judged_beside_the_weights():
    history, callback = History(), WeightAverage(EVAL, decay=0.9)
    model, plain = make_model(), make_model()
    model.fit(TRAIN, EVAL, epochs=3, verbose=0, callbacks=[callback, history])
    alone = History()
    plain.fit(TRAIN, EVAL, epochs=3, verbose=0, callbacks=[alone])
    for row, expected in zip(history.rows, alone.rows, strict=True):
        assert row["train"] == expected["train"]
        own = {k: v for k, v in row["eval"].items() if not k.startswith("ema_")}
        assert own == expected["eval"]
    judged = make_model()
    judged.network.set_state_dict(callback.average)
    result = judged.evaluate(EVAL, verbose=0)
    for name, value in result.items():
        assert history.rows[-1]["eval"][f"ema_{name}"] == pytest.approx(float(np.ravel(value)[0]))
    assert history.rows[-1]["eval"]["ema_loss"] != history.rows[-1]["eval"]["loss"]


@pytest.mark.parametrize("backend", ["paddle", "onednn"])
def test_a_run_keeps_the_average_and_paddle_opens_it(tiny, tmp_path, backend):
    tiny["callbacks"] = {"weight_average": {"decay": 0.9}}
    tiny["training"] |= {"backend": backend}
    tiny["checkpoint"] = {"monitor": "ema_top1"}
    run = fit(parse_config(tiny), tmp_path, "run")
    saved = run.summary["best"]["eval"]["ema_top1"]
    assert run.summary["last"]["eval"]["top1"] != run.summary["last"]["eval"]["ema_top1"]
    run.model.load(str(run.folder / "checkpoints" / "best" / "average"))
    from resnet_fit.data.make_loaders import make_loaders

    judged = run.model.evaluate(make_loaders(parse_config(tiny)).evaluation, verbose=0)
    assert float(np.ravel(judged["top1"])[0]) == pytest.approx(saved, abs=1e-9)


def test_with_a_test_set_apart_the_average_is_tested_too(tiny, tmp_path):
    tiny["callbacks"] = {"weight_average": {"decay": 0.9}}
    tiny["data"] |= {"validation": 0.2}
    test = fit(parse_config(tiny), tmp_path, "run").summary["test"]
    assert test.keys() >= {"top1", "ema_top1"}
    assert test["loss"] != test["ema_loss"]


@pytest.mark.parametrize("decay", [0.0, 1.0, 1.5])
def test_a_decay_that_averages_nothing_is_refused(decay):
    with pytest.raises(UserError, match="decay: received"):
        WeightAverage(decay=decay)
