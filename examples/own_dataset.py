"""Your own arrays, trained with this library's network, loss, metrics and callbacks.

    python examples/own_dataset.py

It needs uint8 images ``[N, C, H, W]`` and integer labels ``[N]``; those below are tiles of two
photographs that come with scikit-learn. The ten lines are in `main`. No config and no run folder:
``model`` is a plain `paddle.Model`, which takes any `paddle.io.Dataset` as well
(`examples/paddle_model.py`). Takes seconds on a CPU.
"""

from __future__ import annotations

import numpy as np
import paddle
from sklearn.datasets import load_sample_images

from resnet_fit import CrossEntropy, History, ProgressBar, classification_metrics, resnet
from resnet_fit.data.augment import HorizontalFlip, Normalize, RandomCrop
from resnet_fit.data.dataset import ArrayDataset, split
from resnet_fit.data.loading import ArrayLoader
from resnet_fit.data.statistics import statistics

TILE = 32


def my_images() -> tuple[np.ndarray, np.ndarray]:
    """Return tiles ``[N, 3, 32, 32]`` of two photographs, and which of the two each comes from."""
    tiles, labels = [], []
    for label, photo in enumerate(load_sample_images().images):
        rows, columns = (n // TILE for n in photo.shape[:2])
        grid = photo[: rows * TILE, : columns * TILE].reshape(rows, TILE, columns, TILE, 3)
        tiles.append(grid.transpose(0, 2, 4, 1, 3).reshape(-1, 3, TILE, TILE))
        labels.append(np.full(rows * columns, label))
    return np.concatenate(tiles), np.concatenate(labels)


def main() -> None:
    paddle.seed(0)  # the same start each time

    train, test = split(ArrayDataset(*my_images(), classes=("palace", "flower")), 0.25)
    normalize = Normalize(*statistics(train))
    batches = ArrayLoader(train, 32, [RandomCrop(), HorizontalFlip(), normalize], shuffle=True)
    tests = ArrayLoader(test, 64, [normalize])
    model = paddle.Model(resnet(depth=18, num_classes=2, stem="cifar", width=8))
    loss, history = CrossEntropy(label_smoothing=0.1), History()
    optimizer = paddle.optimizer.Momentum(0.02, parameters=model.parameters())
    model.prepare(optimizer, loss, classification_metrics(loss, classes=2))
    model.fit(batches, tests, epochs=3, verbose=0, callbacks=[ProgressBar(), history])
    print(f"held out: {history.rows[-1]['eval']['top1']:.1%} of {len(test)} tiles are right")


if __name__ == "__main__":
    main()
