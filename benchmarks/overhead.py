"""What `fit` with all callbacks costs beside a loop written by hand, on the same backend and data.

    python benchmarks/overhead.py [--quick]

All train one epoch of the same images with the same network, optimizer and schedule. ``fit`` has
the callbacks of a run: progress, history, VisualDL, metrics, a checkpoint at its end, and the
guards against NaN, slow data and signals; ``skip`` leaves out steps with NaN as well. ``loop`` has
nothing, and ``again`` is another process of it: its ratio says how small a difference these rounds
show. ``guard`` times the guard against NaN alone, told as a share of the loop's step.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from itertools import count

import numpy as np
from alternate import WORKER, Side, alternate, machine, report, serve, temporary_folder

BATCH = 128
GUARDED = 2000  # steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="3 rounds of 40 steps")
    quick = parser.parse_args().quick
    print(machine())
    steps, rounds = (40, 3) if quick else (60, 15)
    sides = {side: Side(__file__, [side, str(steps)]) for side in WORK}
    seconds = alternate(sides, rounds)
    guard = seconds.pop("guard") / GUARDED
    for side, median in seconds.items():
        print(f"resnet20 batch {BATCH} {side:5} {steps * BATCH / median:8.1f} images/s")
    loop = seconds["loop"]
    report(
        "overhead",
        fit_vs_loop=seconds["fit"] / loop,
        skip_vs_loop=seconds["skip"] / loop,
        again_vs_loop=seconds["again"] / loop,
        guard_percent=100 * guard / (loop / steps),
    )


def worker(side: str, steps: int) -> None:
    from resnet_fit.runtime import prepare_environment

    prepare_environment()
    serve(WORK[side](steps))


def _parts(steps: int) -> tuple:
    import paddle

    from resnet_fit import CrossEntropy, resnet
    from resnet_fit.backends import choose_backend, use_backend
    from resnet_fit.data.augment import HorizontalFlip, Normalize, RandomCrop
    from resnet_fit.data.dataset import ArrayDataset
    from resnet_fit.data.loading import ArrayLoader
    from resnet_fit.training.optimizers.momentum import Momentum

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (steps * BATCH, 3, 32, 32), dtype=np.uint8)
    labels = rng.integers(0, 10, steps * BATCH)
    dataset = ArrayDataset(images, labels, tuple("abcdefghij"))
    operations = [RandomCrop(4), HorizontalFlip(), Normalize((0.5,) * 3, (0.25,) * 3)]
    loader = ArrayLoader(dataset, BATCH, operations, shuffle=True)
    network = resnet(20, 10, "cifar3")
    use_backend(network, choose_backend("auto", "cpu"))
    schedule = paddle.optimizer.lr.CosineAnnealingDecay(0.01, 10_000)
    settings = Momentum(learning_rate=0.01, weight_decay=1e-4)
    return loader, network, CrossEntropy(), schedule, settings.build(network, schedule)


def _fit(steps: int, skip: bool = False) -> Callable[[], None]:
    import paddle

    from resnet_fit import Checkpoint, History, ProgressBar, VisualDL, classification_metrics
    from resnet_fit.callbacks import Interruption, NaNGuard, NaNSkip, SlowData

    loader, network, loss, _, optimizer = _parts(steps)
    model = paddle.Model(network)
    model.prepare(optimizer, loss, classification_metrics(loss, 10))
    folder = temporary_folder()
    number = count()

    def work() -> None:
        run = folder / str(next(number))
        checkpoint = Checkpoint(run / "checkpoints")
        callbacks = [
            *([NaNSkip()] if skip else []),
            paddle.callbacks.LRScheduler(),
            NaNGuard(),
            History(run / "metrics.jsonl"),
            VisualDL(run / "visualdl"),
            SlowData(),
            ProgressBar(),
            checkpoint,
            Interruption(checkpoint),
        ]
        model.fit(loader, epochs=1, verbose=0, callbacks=callbacks)

    return work


def _loop(steps: int) -> Callable[[], None]:
    import paddle

    loader, network, loss, schedule, optimizer = _parts(steps)

    def work() -> None:
        network.train()
        for images, labels in loader:
            value = loss(network(paddle.to_tensor(images)), paddle.to_tensor(labels))
            value.backward()
            optimizer.step()
            optimizer.clear_grad()
            schedule.step()

    return work


def _guard(steps: int) -> Callable[[], None]:
    import paddle

    from resnet_fit.callbacks import NaNGuard

    _, network, *_ = _parts(1)
    guard = NaNGuard()
    guard.set_model(paddle.Model(network))
    guard.set_params({"metrics": ["loss"]})

    def work() -> None:
        for step in range(GUARDED):
            guard.on_train_batch_end(step, {"loss": [1.0], "batch_size": BATCH})

    return work


WORK: dict[str, Callable[[int], Callable[[], None]]] = {
    "fit": _fit,
    "skip": partial(_fit, skip=True),
    "loop": _loop,
    "again": _loop,
    "guard": _guard,
}


if __name__ == "__main__":
    if sys.argv[1:2] == [WORKER]:
        worker(sys.argv[2], int(sys.argv[3]))
    else:
        main()
