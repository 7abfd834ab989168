"""Augmenting CIFAR-sized images on one core: this library on whole batches, Paddle image by image.

    python benchmarks/augment.py [--quick]

``standard`` is crop, flip, normalise; ``article`` is two flips, four colour jitters, normalise;
``rand_augment`` and ``trivial_augment`` are ``standard`` with those, which Paddle has not.
Ours is `resnet_fit.data.augment`; ``device`` is the same operations as Paddle's, made for GPUs and
here on the CPU; ``paddle`` is the same list of `paddle.vision.transforms`, as a
data set applies it in one process.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

import numpy as np
from alternate import WORKER, Side, alternate, machine, report, serve

ONE_CORE = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)
PIPELINES = {
    "standard": ("ours", "device", "paddle"),
    "article": ("ours", "device", "paddle"),
    "rand_augment": ("ours",),
    "trivial_augment": ("ours",),
}
IMAGES = {"ours": 12_800, "device": 12_800, "paddle": 1_000}  # in one piece of work
BATCH = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="3 rounds instead of 11")
    rounds = 3 if parser.parse_args().quick else 11
    print(machine())
    figures: dict[str, float] = {}
    for pipeline, names in PIPELINES.items():
        sides = {s: Side(__file__, [s, pipeline], ONE_CORE) for s in names}
        speed = {s: IMAGES[s] / t for s, t in alternate(sides, rounds).items()}
        for side, images in speed.items():
            print(f"{pipeline:15} {side:8} {images:10,.0f} images/s")
        if "paddle" in speed:
            figures[f"{pipeline}_vs_paddle"] = speed["ours"] / speed["paddle"]
        figures[f"{pipeline}_images_per_second"] = speed["ours"]
    report("augment", **figures)


def worker(side: str, pipeline: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (IMAGES[side], 3, 32, 32), dtype=np.uint8)
    if side == "paddle":
        serve(_paddle(pipeline, images))
    else:
        serve(_ours(pipeline, images, on_device=side == "device"))


def _ours(pipeline: str, images: np.ndarray, on_device: bool) -> Callable[[], None]:
    from resnet_fit.data import augment
    from resnet_fit.runtime import prepare_environment

    prepare_environment()  # as a run does: memory that is kept makes temporaries cheap
    standard: list[augment.Operation] = [augment.RandomCrop(4), augment.HorizontalFlip()]
    lists: dict[str, list[augment.Operation]] = {
        "standard": standard,
        "rand_augment": [*standard, augment.RandAugment()],
        "trivial_augment": [*standard, augment.TrivialAugment()],
        "article": [
            augment.HorizontalFlip(),
            augment.VerticalFlip(),
            augment.ColorJitter(brightness=0.5),
            augment.ColorJitter(contrast=0.5),
            augment.ColorJitter(saturation=0.5),
            augment.ColorJitter(hue=0.5),
        ],
    }
    operations = [*lists[pipeline], augment.Normalize(MEAN, STD)]
    batch = augment.compose(operations, host=0 if on_device else None)
    if on_device:
        from resnet_fit.data.augment.on_device import finish
    rng = np.random.default_rng(0)

    def work() -> None:
        for start in range(0, len(images), BATCH):
            made = batch(images[start : start + BATCH], rng)
            if on_device:
                finish(made)

    return work


def _paddle(pipeline: str, images: np.ndarray) -> Callable[[], None]:
    import paddle.vision.transforms as T
    from PIL import Image

    lists = {
        "standard": [T.RandomCrop(32, padding=4), T.RandomHorizontalFlip()],
        "article": [
            T.RandomHorizontalFlip(),
            T.RandomVerticalFlip(),
            T.ColorJitter(brightness=0.5),
            T.ColorJitter(contrast=0.5),
            T.ColorJitter(saturation=0.5),
            T.ColorJitter(hue=0.5),
        ],
    }
    transform = T.Compose([*lists[pipeline], T.ToTensor(), T.Normalize(MEAN, STD)])
    pictures = [Image.fromarray(image.transpose(1, 2, 0)) for image in images]

    def work() -> None:
        for picture in pictures:
            transform(picture)

    return work


if __name__ == "__main__":
    if sys.argv[1:2] == [WORKER]:
        worker(*sys.argv[2:])
    else:
        main()
