"""What images and their mirror images reach together, beside the plain figures."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from resnet_fit import fit, parse_config, resnet
from resnet_fit.callbacks import FlipAverage, History, WeightAverage
from resnet_fit.callbacks.progress import show
from resnet_fit.training.metrics import classification_metrics
from resnet_fit.training.objectives import CrossEntropy


def make_model():
    paddle.seed(0)
    network = resnet([1], num_classes=4, stem="cifar", width=4)
    model, loss = paddle.Model(network), CrossEntropy()
    optimizer = paddle.optimizer.SGD(0.1, parameters=network.parameters())
    model.prepare(optimizer, loss, classification_metrics(loss, 4))
    return model


def batches(n=3):
    rng = np.random.default_rng(0)
    return [
        [rng.normal(size=(8, 3, 8, 8)).astype("float32"), rng.integers(0, 4, 8)] for _ in range(n)
    ]


def test_it_is_the_accuracy_of_the_mean_logits():
    model, history = make_model(), History()
    data = batches()
    model.fit(data, data, epochs=2, verbose=0, callbacks=[FlipAverage(data), history])
    model.network.eval()
    right, losses = [], []
    for images, labels in data:
        with paddle.no_grad():
            views = [model.network(paddle.to_tensor(v.copy())) for v in (images, images[..., ::-1])]
        logits = (views[0] + views[1]) / 2
        right.append((logits.argmax(1).numpy() == labels).mean())
        losses.append(float(CrossEntropy()(logits, paddle.to_tensor(labels))))
    row = history.rows[-1]["eval"]
    assert row["flip_top1"] == pytest.approx(np.mean(right))
    assert row["flip_loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert row["flip_loss"] != row["loss"]


def test_the_plain_figures_and_the_training_stay_what_they_are():
    data, rows = batches(), []
    for callbacks in ([], [WeightAverage(batches(), 0.9), FlipAverage(batches())]):
        model, history = make_model(), History()
        model.fit(data, data, epochs=3, verbose=0, callbacks=[*callbacks, history])
        rows.append(history.rows)
    for alone, beside in zip(*rows, strict=True):
        assert beside["train"] == alone["train"]
        own = {k: v for k, v in beside["eval"].items() if not k.startswith(("ema_", "flip_"))}
        assert own == alone["eval"]
        assert beside["eval"].keys() >= {"ema_top1", "flip_top1", "ema_loss", "flip_loss"}


def test_a_run_reports_it_and_tests_it(tiny, tmp_path):
    tiny["callbacks"] = {"flip_average": {}}
    tiny["data"] |= {"validation": 0.2}
    summary = fit(parse_config(tiny), tmp_path, "run").summary
    assert summary["last"]["eval"].keys() >= {"top1", "flip_top1", "flip_loss"}
    assert summary["test"].keys() >= {"top1", "flip_top1"}


def test_its_accuracy_is_shown_as_the_plain_one_is():
    assert show({"top1": 0.5, "flip_top1": 0.25}) == "top1 50.00 % flip_top1 25.00 %"
