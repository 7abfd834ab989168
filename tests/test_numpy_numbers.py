"""Calls from Python take NumPy's numbers as they take Python's own."""

from __future__ import annotations

import json

import numpy as np
import paddle
import pytest
from PIL import Image
from visualdl import LogReader

from resnet_fit import (
    BinaryCrossEntropy,
    Checkpoint,
    CrossEntropy,
    EarlyStopping,
    History,
    ProgressBar,
    StepSeed,
    TopK,
    UserError,
    VisualDL,
    WeightAverage,
    classification_metrics,
    densenet,
    resnet,
)
from resnet_fit.callbacks.records import RECORDS
from resnet_fit.data import augment, transforms
from resnet_fit.data.dataset import ArrayDataset
from resnet_fit.data.datasets.folder import scan
from resnet_fit.data.loading import ArrayLoader, FileLoader

whole, real = np.int64, np.float32
OPERATIONS = [
    augment.RandomCrop(padding=whole(1)),
    augment.HorizontalFlip(p=real(0.5)),
    augment.Normalize(mean=(real(0.5),), std=(real(0.5),)),
]


@pytest.mark.parametrize("depth", [whole(18), [whole(1), 1], np.array([1, 1]), (1, whole(1))])
def test_depths(depth):
    network = resnet(depth, 5, "cifar", width=4)
    assert network(paddle.rand([1, 3, 8, 8])).shape[1] == 5


@pytest.mark.parametrize("integer", [np.int8, np.int64, np.uint16])
def test_networks(integer):
    options = {"num_classes": integer(5), "stem": "cifar", "in_channels": integer(1)}
    images = paddle.rand([2, 1, 8, 8])
    for network in (
        resnet([1, 1], width=integer(4), stochastic_depth=real(0.1), **options),
        densenet(whole(10), growth=integer(4), **options),
    ):
        assert list(network(images).shape) == [2, 5]


@pytest.mark.parametrize("value", [True, np.bool_(True), 0, whole(0), 2.0, real(2), "2", None])
def test_what_is_no_whole_number_is_refused(value):
    with pytest.raises(
        UserError, match=r"num_classes: received .*, expected a whole number above 0"
    ):
        resnet([1, 1], value, "cifar")
    with pytest.raises(UserError, match="depth: expected a depth"):
        resnet(value, 5, "cifar")


def test_losses_and_metrics():
    logits, labels = paddle.rand([4, 5]), paddle.to_tensor([0, 1, 2, 3])
    for kind in (CrossEntropy, BinaryCrossEntropy):
        expected = kind(0.5, [1.0, 2.0, 1.0, 2.0, 1.0])(logits, labels)
        assert float(kind(real(0.5), np.array([1, 2, 1, 2, 1]))(logits, labels)) == float(expected)
    metric = TopK(np.array([1, 2]))
    metric.update(metric.compute(logits, labels).numpy())
    assert json.dumps(metric.state_dict())


def test_a_training(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (24, 3, 8, 8)).astype(np.uint8)
    data = ArrayDataset(images, np.arange(24) % 5, tuple("abcde"))
    loader = ArrayLoader(data, whole(8), OPERATIONS, shuffle=True, seed=whole(3))
    evaluation = ArrayLoader(data, whole(8), OPERATIONS[-1:])
    history = History(tmp_path / "metrics.jsonl")
    callbacks = [
        ProgressBar(whole(2)),
        StepSeed(whole(5)),
        VisualDL(tmp_path, whole(2), None, {"a": whole(3), "b": real(0.5), "c": np.bool_(True)}),
        history,
        WeightAverage(evaluation, real(0.5)),
        EarlyStopping(patience=whole(1), min_delta=real(0.1)),
        Checkpoint(tmp_path / "saved", every_minutes=real(3), every_steps=whole(2), keep=whole(1)),
    ]
    model, loss = paddle.Model(resnet([1, 1], whole(5), "cifar", width=4)), CrossEntropy()
    momentum = paddle.optimizer.Momentum(0.01, parameters=model.parameters())
    model.prepare(momentum, loss, classification_metrics(loss, whole(5)))
    model.fit(loader, evaluation, epochs=whole(2), verbose=0, callbacks=callbacks)
    assert len(history.rows) == 2
    assert (tmp_path / "saved" / "epoch-0002").is_dir()
    (values,) = LogReader(file_path=str(tmp_path / "eval" / RECORDS)).get_data(
        "hyper_parameters", "hparam"
    )
    kinds = {h.name: h.WhichOneof("type") for h in values.hparam.hparamInfos}
    assert kinds == {"a": "int_value", "b": "float_value", "c": "string_value"}


def test_a_loader_of_files(tmp_path):
    for i in range(4):
        folder = tmp_path / "ab"[i % 2]
        folder.mkdir(exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), i, np.uint8)).save(folder / f"{i}.png")
    operations = [
        transforms.CenterCrop(size=whole(8)),
        augment.Normalize(mean=(0.5,), std=(0.5,)),
    ]
    data = scan(tmp_path)
    loader = FileLoader(data, whole(2), operations, shuffle=True, seed=whole(1), workers=whole(1))
    assert [len(labels) for _, labels in loader] == [2, 2]
    loader.close()
