"""Networks of a user's own, and a thousand classes."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import paddle
import pytest
from evaluated import Page

from resnet_fit import UserError, fit, open_run, parse_config
from resnet_fit.cli import main
from resnet_fit.data.dataset import ArrayDataset
from resnet_fit.evaluation import evaluate, save
from resnet_fit.evaluation.tables import image_row


class Own(paddle.nn.Layer):
    """A network without a linear layer."""

    def __init__(self, channels, classes):
        super().__init__()
        self.conv = paddle.nn.Conv2D(channels, classes, 3)

    def forward(self, images):
        return self.conv(images).mean([2, 3])


def given(tmp_path, network, classes, images=60, size=6):
    rng = np.random.default_rng(0)
    names = tuple(f"c{i}" for i in range(classes))
    data = ArrayDataset(
        rng.integers(0, 256, (images, 3, size, size), np.uint8), np.arange(images) % classes, names
    )
    config = parse_config(
        {
            "model": {"name": "given"},
            "data": {"name": "given", "batch_size": 20},
            "optimizer": {"name": "momentum", "learning_rate": 0.001},
            "training": {"epochs": 1},
            "callbacks": {"visualdl": None},
        }
    )
    fit(config, tmp_path, "run", network=network(3, classes), data=(data, data))
    return open_run(tmp_path / "run", network=network(3, classes)), data


def test_a_network_of_a_users_own(tmp_path, capsys):
    run, data = given(tmp_path, Own, 2)
    found = evaluate(run, data)
    assert found.predictions.features is None
    assert found.mistake_pictures.method == "input gradient"
    assert "top5" not in found.figures
    save(found, tmp_path / "run/evaluation")
    page = Page((tmp_path / "run/evaluation/report.html").read_text("utf-8"))
    assert "not in VisualDL" in page.text
    assert main(["evaluate", str(tmp_path / "run")]) == 2
    err = capsys.readouterr().err
    assert "a program handed this run its network" in err
    assert "evaluate(open_run(" in err


def test_images_keep_their_names(tmp_path):
    run, data = given(tmp_path, Own, 2)
    named = replace(data, names=[f"scan {i}" for i in range(len(data))])
    found = evaluate(run, named)
    assert tuple(found.predictions.names) == named.names
    assert image_row(found, 3)["image"] == "scan 3"


def test_outputs_that_are_no_logits_are_refused(tmp_path):
    run, data = given(tmp_path, Own, 2)
    forward = run.network.forward
    run.network.forward = lambda images: forward(images)[:, :1]
    with pytest.raises(UserError, match=r"received \[60, 1\], expected logits \[60, 2\]"):
        evaluate(run, data)


def test_a_thousand_classes(tmp_path):
    def network(channels, classes):
        return paddle.nn.Sequential(
            paddle.nn.Flatten(), paddle.nn.Linear(channels * 36, 8), paddle.nn.Linear(8, classes)
        )

    run, data = given(tmp_path, network, 1000, images=1000)
    found = evaluate(run, data)
    assert found.predictions.features.shape == (1000, 8)
    save(found, tmp_path / "out")
    assert (tmp_path / "out/report.html").stat().st_size < 2e6
    with open(tmp_path / "out/predictions.csv", encoding="utf-8", newline="") as file:
        assert len(next(csv.reader(file))) == 1004
    assert "data:image/png" in (tmp_path / "out/report.html").read_text("utf-8")
