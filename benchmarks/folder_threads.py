"""Image files decoded by threads instead of worker processes: speed, memory, Python's lock.

    python benchmarks/folder_threads.py [--quick] [--path FOLDER] [--only KINDS]

Each side is `FileLoader` on photos that are cut and flipped, by worker processes
(``*_processes``) or by as many threads of the same process (``*_threads``), two of them:

- ``files``, ``cache``: to 224 pixels and normalised, from files, and from decoded copies;
- ``train``: to 64 pixels, while the main thread trains ResNet-18 on them; ``train_nothing`` trains
  on one batch again and again;
- ``one``, ``two``: to 224 pixels, without normalising, which the prefetching thread does, by one
  worker and by two: what the second one brings.

Ratios are medians of the rounds' own ratios. Memory is that of the process and its workers after a
pass; pages that they share count once (PSS of Linux). ``lock`` is the share of one thread's time
outside of the calls that give Python's lock away: threads cannot be faster than one thread by more
than its inverse. FOLDER is as in ``benchmarks/folder.py``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
from alternate import WORKER, Side, machine, report, serve
from folder import BATCH, CACHED, MEAN, PIXELS, STD, fill_cache, make_photos

TRAINED_PIXELS = 64
KINDS = ("files", "cache", "train", "one", "two")
SIDES = (*(f"{kind}_{by}" for kind in KINDS for by in ("processes", "threads")), "train_nothing")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="3 rounds of 512 photos")
    parser.add_argument("--path", type=Path, help="a folder of class folders")
    parser.add_argument("--only", default="", help="sides whose names begin so, and commas")
    options = parser.parse_args()
    images, rounds = (512, 3) if options.quick else (2048, 9)
    chosen = [side for side in SIDES if side.startswith(tuple(options.only.split(",")))]
    print(machine())
    with TemporaryDirectory() as made:
        photos = options.path or make_photos(Path(made) / "photos", 512)
        fill_cache(photos, Path(made) / "cache", 2)
        seconds = in_turn(chosen, [str(photos), made, str(images)], rounds)
        memory = {side: float((Path(made) / side).read_text()) for side in chosen}
        figures = {
            f"lock_{kind}": lock_share(_data(kind, str(photos), made), 64) for kind in KINDS[:2]
        }
    for side in chosen:
        speed = images_of(side, images) / statistics.median(seconds[side])
        print(f"{side:17} {speed:8.1f} images/s {memory[side]:6.0f} MB")
        figures |= {f"{side}_images_per_second": speed, f"{side}_mb": memory[side]}
    report("folder_threads", **ratios(seconds), **figures)


def images_of(side: str, images: int) -> int:
    """How many images a pass has: fewer with a training, which takes longer."""
    return images // 4 if side.startswith("train") else images


def in_turn(sides: Iterable[str], work: list[str], rounds: int) -> dict[str, list[float]]:
    """Seconds of each side in each round; the first round does not count."""
    processes = {side: Side(__file__, [side, *work]) for side in sides}
    try:
        turns = []
        for _ in range(rounds + 1):
            turns.append({side: process.measure() for side, process in processes.items()})
            taken = (f"{side} {seconds:.2f}" for side, seconds in turns[-1].items())
            print("seconds:", ", ".join(taken), flush=True)
    finally:
        for process in processes.values():
            process.close()
    return {side: [turn[side] for turn in turns[1:]] for side in processes}


def ratios(seconds: dict[str, list[float]]) -> dict[str, float]:
    """How much faster threads are than processes, and two of a kind than one."""
    found = {}
    for kind in KINDS:
        if f"{kind}_threads" in seconds:
            found[f"{kind}_threads_vs_processes"] = _median_ratio(
                seconds[f"{kind}_processes"], seconds[f"{kind}_threads"]
            )
    for by in ("processes", "threads"):
        if {f"one_{by}", f"two_{by}"} <= seconds.keys():
            found[f"two_{by}_vs_one"] = _median_ratio(seconds[f"one_{by}"], seconds[f"two_{by}"])
    return found


def _median_ratio(one: list[float], other: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


def lock_share(dataset: Any, images: int) -> float:
    """Which share of the processor's time for cut and flipped batches holds Python's lock."""
    import cv2
    from PIL import Image

    from resnet_fit.data.augment import HorizontalFlip
    from resnet_fit.data.batching import Batching
    from resnet_fit.data.transforms import RandomResizedCrop

    free = 0.0

    def timed(call: Callable[..., Any]) -> Callable[..., Any]:
        def measured(*arguments: Any, **options: Any) -> Any:
            nonlocal free
            started = time.thread_time()
            try:
                return call(*arguments, **options)
            finally:
                free += time.thread_time() - started

        return measured

    class Decoder:
        def __init__(self, decoder: Any) -> None:
            self._decoder, self.decode = decoder, timed(decoder.decode)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._decoder, name)

    get = Image._getdecoder
    batches = Batching((RandomResizedCrop(PIXELS),), (HorizontalFlip(),), 0, "error")
    task = _task(dataset, images)
    batches.make(task)
    with ExitStack() as patches:
        for owner, name in ((cv2, "resize"), (cv2, "flip"), (cv2, "mixChannels"), (np, "fromfile")):
            patches.enter_context(patch.object(owner, name, timed(getattr(owner, name))))
        decoder = lambda *arguments: Decoder(get(*arguments))  # noqa: E731
        patches.enter_context(patch.object(Image, "_getdecoder", decoder))
        started = time.thread_time()
        batches.make(task)
        return 1 - free / (time.thread_time() - started)


def _task(dataset: Any, images: int) -> Any:
    from resnet_fit.data.batching import Task

    copies = tuple(None if dataset.copies is None else dataset.copies[i] for i in range(images))
    return Task(tuple(dataset.paths[:images]), copies, 0, 0, np.zeros(images))


class Threads:
    """Does by threads what `Team` does by processes: as many tasks ahead, results in order."""

    @contextmanager
    def make_all(self, recipe: Any, tasks: Iterable[Any], workers: int) -> Iterator[Iterator[Any]]:
        from resnet_fit.data.workers import TASKS_EACH

        with ThreadPoolExecutor(workers) as pool:

            def results() -> Iterator[Any]:
                pending: deque[Future[Any]] = deque()
                for task in tasks:
                    pending.append(pool.submit(recipe.make, task))
                    if len(pending) == workers * TASKS_EACH:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()

            yield results()


def worker(side: str, photos: str, place: str, images: str) -> None:
    kind, by = side.split("_")
    loader = _loader(kind, by, photos, place, images_of(side, int(images)))
    one_pass = _training(loader, by) if kind == "train" else _reading(loader)

    def work() -> None:
        one_pass()
        (Path(place) / side).write_text(str(_megabytes()))

    serve(work)


def _loader(kind: str, by: str, photos: str, place: str, images: int) -> Any:
    import cv2

    from resnet_fit.runtime import prepare_environment

    prepare_environment()
    from resnet_fit.data.augment import HorizontalFlip, Normalize
    from resnet_fit.data.loading import FileLoader
    from resnet_fit.data.transforms import RandomResizedCrop

    cv2.setNumThreads(1)  # as in worker processes
    dataset = _data(kind, photos, place)
    again = dataset.take(np.arange(images) % len(dataset))
    pixels = TRAINED_PIXELS if kind == "train" else PIXELS
    normalize = () if kind in ("one", "two") else (Normalize(MEAN, STD),)
    transforms = (RandomResizedCrop(pixels), HorizontalFlip(), *normalize)
    workers = 1 if kind == "one" else 2
    loader = FileLoader(again, BATCH, transforms, shuffle=True, workers=workers)
    if by == "threads":
        loader._team = Threads()  # type: ignore[assignment]
    return loader


def _data(kind: str, photos: str, place: str) -> Any:
    from resnet_fit.data.cache import cache_images
    from resnet_fit.data.datasets.folder import scan

    dataset = scan(Path(photos))
    return cache_images(dataset, CACHED, Path(place) / "cache") if kind == "cache" else dataset


def _reading(loader: Any) -> Callable[[], None]:
    def one_pass() -> None:
        assert sum(len(labels) for _, labels in loader) == loader.count

    return one_pass


def _training(loader: Any, by: str) -> Callable[[], None]:
    import paddle

    from resnet_fit import CrossEntropy, resnet
    from resnet_fit.backends import choose_backend, use_backend

    network = resnet(depth=18, num_classes=1000)
    use_backend(network, choose_backend("auto", "cpu"))
    model = paddle.Model(network)
    optimizer = paddle.optimizer.Momentum(0.001, parameters=model.parameters())
    model.prepare(optimizer, CrossEntropy())
    same = [next(iter(loader))] * len(loader) if by == "nothing" else None

    def one_pass() -> None:
        for images, labels in same or loader:
            model.train_batch([images], [labels])

    return one_pass


def _megabytes() -> float:
    """What this process and those it started hold."""
    kilobytes, waiting = 0, [os.getpid()]
    while waiting:
        folder = Path(f"/proc/{waiting.pop()}")
        rollup = (folder / "smaps_rollup").read_text().splitlines()
        kilobytes += sum(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))
        for children in folder.glob("task/*/children"):
            waiting += map(int, children.read_text().split())
    return kilobytes / 1024


if __name__ == "__main__":
    if sys.argv[1:2] == [WORKER]:
        worker(*sys.argv[2:])
    else:
        main()
