"""Accumulated batches train as one big batch, also where a group is not full."""

from __future__ import annotations

import numpy as np
import paddle
import pytest
from paddle import nn

from resnet_fit.training import CrossEntropy
from resnet_fit.training.accumulation import accumulated

FEATURES, CLASSES, IMAGES = 5, 3, 10
RNG = np.random.default_rng(0)
X = RNG.normal(size=(IMAGES, FEATURES)).astype("float32")
Y = RNG.integers(0, CLASSES, IMAGES)


def weights_after(sizes, batches, clip=None):
    """Three epochs of batches of these sizes, so many of them to a step."""
    paddle.seed(0)
    network = nn.Linear(FEATURES, CLASSES)
    optimizer = paddle.optimizer.Momentum(
        0.5,
        parameters=network.parameters(),
        grad_clip=clip and nn.ClipGradByGlobalNorm(clip),
    )
    model = paddle.Model(network)
    loss = accumulated(CrossEntropy(), optimizer, batches, batch_size=max(sizes))
    model.prepare(optimizer, loss)
    ends = np.cumsum(sizes)
    data = [[X[end - n : end], Y[end - n : end]] for end, n in zip(ends, sizes, strict=True)]
    assert ends[-1] == IMAGES
    model.fit(data, data, epochs=3, accumulate_grad_batches=batches, verbose=0)
    return network.weight.numpy()


@pytest.mark.parametrize("clip", [None, 0.1])
@pytest.mark.parametrize(
    ("sizes", "batches", "big"),
    [
        ([5, 5], 2, [10]),
        ([4, 4, 2], 3, [10]),  # the last batch is not full
        ([4, 4, 2], 2, [8, 2]),  # nor is the last group
        ([2, 2, 2, 2, 2], 4, [8, 2]),
        ([3, 1, 3, 3], 4, [10]),  # a batch of which images were skipped
        ([5, 5], 4, [10]),  # an epoch shorter than a group
    ],
)
def test_as_one_big_batch(sizes, batches, big, clip):
    together = weights_after(sizes, batches, clip)
    assert np.allclose(together, weights_after(big, 1, clip), rtol=1e-5, atol=1e-6)


def test_one_batch_to_a_step_needs_nothing():
    optimizer = paddle.optimizer.SGD(parameters=nn.Linear(1, 1).parameters())
    loss = CrossEntropy()
    assert accumulated(loss, optimizer, 1, 8) is loss
    assert "minimize" not in vars(optimizer)


def test_an_evaluations_loss_is_not_divided():
    network = nn.Linear(FEATURES, CLASSES)
    optimizer = paddle.optimizer.SGD(parameters=network.parameters())
    loss = accumulated(CrossEntropy(), optimizer, 4, IMAGES)
    with paddle.no_grad():
        logits, labels = network(paddle.to_tensor(X)), paddle.to_tensor(Y)
        assert float(loss(logits, labels)) == float(CrossEntropy()(logits, labels))
