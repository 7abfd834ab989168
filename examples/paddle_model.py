"""`paddle.Model(resnet(depth=50))` with this library's loss, metrics and callbacks.

    python examples/paddle_model.py

Everything else is Paddle's own: the optimizer, the `paddle.io.Dataset` and `fit`. The labels are
ImageNet's, so the network keeps its 1,000 classes, and the 80 images are tiles of two photographs
that come with scikit-learn. Curves and checkpoints go to a temporary folder, which the last lines
open again. Takes less than half a minute on a CPU.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import paddle
from sklearn.datasets import load_sample_images

from resnet_fit import (
    Checkpoint,
    CrossEntropy,
    History,
    MeanLoss,
    ProgressBar,
    TopK,
    VisualDL,
    resnet,
)

TILE = 80
CLASSES = (698, 985)  # ImageNet's numbers for a palace and, the nearest flower, a daisy


class Tiles(paddle.io.Dataset):
    """Tiles of two photographs: images float32 ``[3, 80, 80]``, labels int64 ``[1]``."""

    def __init__(self, held_out: bool) -> None:
        self.tiles = [
            (photo[y : y + TILE, x : x + TILE], label)
            for photo, label in zip(load_sample_images().images, CLASSES, strict=True)
            for y in range(0, photo.shape[0] - TILE + 1, TILE)
            for x in range(0, photo.shape[1] - TILE + 1, TILE)
        ]
        self.tiles = [t for i, t in enumerate(self.tiles) if (i % 4 == 3) == held_out]

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        tile, label = self.tiles[index]
        return (tile.transpose(2, 0, 1) / 127.5 - 1).astype("float32"), np.array([label])

    def __len__(self) -> int:
        return len(self.tiles)


def main() -> None:
    paddle.seed(0)
    np.random.seed(0)  # the order of the training images
    # With zero_init_residual a block starts as its shortcut, which steadies the first few steps.
    model = paddle.Model(resnet(depth=50, zero_init_residual=True))
    loss = CrossEntropy()
    optimizer = paddle.optimizer.Momentum(0.01, parameters=model.parameters())
    model.prepare(optimizer, loss, [MeanLoss(loss.per_sample), TopK((1, 5))])
    with tempfile.TemporaryDirectory() as folder:
        history = History(Path(folder, "metrics.jsonl"))
        model.fit(
            Tiles(held_out=False),
            Tiles(held_out=True),
            batch_size=10,
            epochs=2,
            verbose=0,
            callbacks=[
                ProgressBar(),
                VisualDL(Path(folder, "visualdl"), every_steps=1),
                history,
                Checkpoint(Path(folder, "checkpoints"), monitor="top1"),
            ],
        )
        print("written:", ", ".join(sorted(p.name for p in Path(folder).iterdir())))
        again = paddle.Model(resnet(depth=50))
        again.load(str(Path(folder, "checkpoints", "best", "model")))
    again.prepare(loss=loss, metrics=[MeanLoss(loss.per_sample), TopK((1, 5))])
    top1 = again.evaluate(Tiles(held_out=True), batch_size=10, verbose=0)["top1"]
    best = max(row["eval"]["top1"] for row in history.rows)
    print(f"the best checkpoint, opened again: top1 {top1:.2%}, in training {best:.2%}")


if __name__ == "__main__":
    main()
