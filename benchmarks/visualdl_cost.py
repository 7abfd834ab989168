"""What each thing that VisualDL shows of a training costs it.

    python benchmarks/visualdl_cost.py [--quick]

All train epochs of the same images with the same network, through `paddle.Model.fit`, and take
turns. ``nothing`` has no VisualDL, and ``again`` is another process of it: its ratio says how small
a difference these rounds show. ``curves`` has the curves alone; ``images`` and ``histograms`` have
one thing more, in every epoch, which for images is more often than in a real training; ``all`` has
everything but the graph. ``sheet`` and ``kernels`` time images and histograms of one epoch alone,
told as shares of an epoch of CIFAR-10 (391 steps) as well, where the ratios are too coarse.
``graph`` draws the network's graph, once a run. The bytes are those of the records of one epoch.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from alternate import WORKER, Side, alternate, machine, report, serve, temporary_folder

BATCH = 128
SHAPE = (3, 32, 32)
CIFAR_STEPS = 391
NORMALISATION = ((0.5,) * 3, (0.25,) * 3)
OFF = {"images": False, "histograms": False}
SHOWN: dict[str, dict[str, Any] | None] = {
    "nothing": None,
    "again": None,
    "curves": OFF,
    "images": OFF | {"images": True},
    "histograms": OFF | {"histograms": True},
    "all": {},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2 rounds of epochs of 20 steps")
    quick = parser.parse_args().quick
    print(machine())
    steps, rounds = (20, 2) if quick else (100, 9)
    sides = {side: Side(__file__, [side, str(steps)]) for side in [*SHOWN, *ALONE]}
    seconds = alternate(sides, rounds)
    alone = {side: seconds.pop(side) for side in ALONE}
    for side, median in seconds.items():
        print(f"resnet20 batch {BATCH} {side:10} {1000 * median / steps:8.2f} ms a step")
    nothing = seconds.pop("nothing")
    ratios = {f"{side}_vs_nothing": value / nothing for side, value in seconds.items()}
    told = {f"{side}_seconds": value for side, value in alone.items()}
    epoch = CIFAR_STEPS * nothing / steps
    shares = {f"{side}_percent": 100 * alone[side] / epoch for side in ("sheet", "kernels")}
    report("visualdl_cost", **ratios, **told, **shares, **_bytes())


def _bytes() -> dict[str, float]:
    """What an epoch's images and histograms take on the disk."""
    from resnet_fit.runtime import prepare_environment

    prepare_environment()
    sizes = {}
    for side in ("curves", "images", "histograms"):
        folder = temporary_folder()
        _fit(side, 20, folder)()
        sizes[side] = sum(file.stat().st_size for file in folder.rglob("vdlrecords*"))
    return {
        "images_bytes": sizes["images"] - sizes["curves"],
        "histograms_bytes": sizes["histograms"] - sizes["curves"],
    }


def worker(side: str, steps: int) -> None:
    from resnet_fit.runtime import prepare_environment

    prepare_environment()
    folder = temporary_folder()
    serve(_fit(side, steps, folder) if side in SHOWN else ALONE[side](folder))


def _network() -> Any:
    from resnet_fit import resnet
    from resnet_fit.backends import choose_backend, use_backend

    network = resnet(20, 10, "cifar3")
    use_backend(network, choose_backend("auto", "cpu"))
    return network


def _graph(_: Path) -> Callable[[], object]:
    from resnet_fit.networks.graph import describe_graph

    return partial(describe_graph, _network(), SHAPE)


def _sheet(folder: Path) -> Callable[[], object]:
    from resnet_fit.callbacks.contact_sheet import contact_sheet
    from resnet_fit.callbacks.records import Records

    records = Records(folder)
    images = np.random.default_rng(0).normal(size=(BATCH, *SHAPE)).astype("float32")

    def work() -> None:
        sheet = contact_sheet(images, NORMALISATION)
        assert sheet is not None
        records.add_image("batch", sheet, 1)
        records.flush()

    return work


def _kernels(folder: Path) -> Callable[[], object]:
    """Weights twice: gradients take as long."""
    import paddle

    from resnet_fit import VisualDL

    callback = VisualDL(folder)
    callback.set_model(paddle.Model(_network()))

    def work() -> None:
        for name, kernel in 2 * callback._kernels():
            callback._add_histogram(name, kernel, 1)
        callback._flush()

    return work


def _fit(side: str, steps: int, folder: Path) -> Callable[[], None]:
    import paddle

    from resnet_fit import CrossEntropy, VisualDL, classification_metrics
    from resnet_fit.data.augment import HorizontalFlip, Normalize, RandomCrop
    from resnet_fit.data.dataset import ArrayDataset
    from resnet_fit.data.loading import ArrayLoader

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (steps * BATCH, *SHAPE), dtype=np.uint8)
    dataset = ArrayDataset(images, rng.integers(0, 10, len(images)), tuple("abcdefghij"))
    operations = [RandomCrop(4), HorizontalFlip(), Normalize(*NORMALISATION)]
    loader = ArrayLoader(dataset, BATCH, operations, shuffle=True)
    network, loss = _network(), CrossEntropy()
    model = paddle.Model(network)
    optimizer = paddle.optimizer.Momentum(0.01, parameters=network.parameters())
    model.prepare(optimizer, loss, classification_metrics(loss, 10))
    shown, number = SHOWN[side], count()

    def work() -> None:
        callbacks = []
        if shown is not None:  # a new one each time, so that each has a first epoch
            run = folder / str(next(number))
            callbacks = [VisualDL(run, normalisation=NORMALISATION, **shown)]
        model.fit(loader, epochs=1, verbose=0, callbacks=callbacks)

    return work


ALONE = {"graph": _graph, "sheet": _sheet, "kernels": _kernels}


if __name__ == "__main__":
    if sys.argv[1:2] == [WORKER]:
        worker(sys.argv[2], int(sys.argv[3]))
    else:
        main()
