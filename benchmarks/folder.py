"""Batches from an image folder: this library's loader, with and without its cache, and Paddle's.

    python benchmarks/folder.py [--quick] [--path FOLDER] [--workers N]

All cut, resize to 224 pixels, flip and normalise photos in as many worker processes. ``folder`` is
`FileLoader`, ``cache`` the same on images shrunk to 256 pixels by `cache_images`; ``paddle`` is a
`paddle.io.DataLoader` of `paddle.vision.datasets.DatasetFolder` as it comes, whose workers start
anew for each pass, and ``paddle_opencv`` the same with its other image backend. FOLDER has photos
in class folders; without it some are made, of the size of ImageNet's. All is read from memory; a
disk's time would come on top.
"""

from __future__ import annotations

import argparse
import faulthandler
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from alternate import WORKER, Side, alternate, machine, report, serve

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PIXELS, CACHED, BATCH = 224, 256, 32
SIDES = ("folder", "cache", "paddle", "paddle_opencv")
# A pass that takes this long hangs, as Paddle's loader now and then does.
PATIENCE_SECONDS = 600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2 rounds of 512 photos")
    parser.add_argument("--path", type=Path, help="a folder of class folders")
    parser.add_argument("--workers", type=int, default=2, help="processes of each loader (2)")
    options = parser.parse_args()
    images, rounds = (512, 2) if options.quick else (8192, 5)
    print(machine())
    with TemporaryDirectory() as made:
        photos = options.path or make_photos(Path(made) / "photos", 128 if options.quick else 512)
        work = [str(photos), f"{made}/cache", str(images), str(options.workers)]
        build = fill_cache(photos, Path(made) / "cache", options.workers)
        sides = {side: Side(__file__, [side, *work]) for side in SIDES}
        speed = {side: images / seconds for side, seconds in alternate(sides, rounds).items()}
    print(f"{'build':13} {build:8.1f} images/s")
    for side in SIDES:
        print(f"{side:13} {speed[side]:8.1f} images/s")
    report(
        "folder",
        folder_vs_paddle=speed["folder"] / speed["paddle"],
        cache_vs_paddle=speed["cache"] / speed["paddle"],
        cache_vs_folder=speed["cache"] / speed["folder"],
        folder_vs_paddle_opencv=speed["folder"] / speed["paddle_opencv"],
        cache_vs_paddle_opencv=speed["cache"] / speed["paddle_opencv"],
        cache_build_images_per_second=build,
        **{f"{side}_images_per_second": speed[side] for side in SIDES},
    )


def make_photos(folder: Path, count: int) -> Path:
    """Photos of two classes, of ImageNet's usual size and about as many bytes: clouds and noise."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for i in range(count):
        size = (500, 375) if i % 3 else (375, 500)
        scales = (6, 25, 100)
        pixels = np.zeros((*size[::-1], 3))
        for cells in scales:
            clouds = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), np.uint8))
            pixels += np.asarray(clouds.resize(size, Image.Resampling.BICUBIC)) / len(scales)
        pixels += rng.normal(0, 4, pixels.shape)
        file = folder / "ab"[i % 2] / f"{i}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, quality=90)
    return folder


def fill_cache(photos: Path, place: Path, workers: int) -> float:
    """Photos a second."""
    from resnet_fit.data.cache import cache_images
    from resnet_fit.data.datasets.folder import scan

    dataset = scan(photos)
    started = time.perf_counter()
    cache_images(dataset, CACHED, place, workers=workers)
    return len(dataset) / (time.perf_counter() - started)


def worker(side: str, photos: str, place: str, *numbers: str) -> None:
    images, workers = map(int, numbers)
    if side.startswith("paddle"):
        one_pass = _paddle(photos, images, workers, "cv2" if side == "paddle_opencv" else "pil")
    else:
        one_pass = _ours(photos, place if side == "cache" else None, images, workers)

    def work() -> None:
        faulthandler.dump_traceback_later(PATIENCE_SECONDS, exit=True)
        one_pass()

    serve(work)


def _ours(photos: str, place: str | None, images: int, workers: int) -> Callable[[], None]:
    from resnet_fit.data.augment import HorizontalFlip, Normalize
    from resnet_fit.data.cache import cache_images
    from resnet_fit.data.datasets.folder import scan
    from resnet_fit.data.loading import FileLoader
    from resnet_fit.data.transforms import RandomResizedCrop
    from resnet_fit.runtime import prepare_environment

    prepare_environment()
    dataset = scan(Path(photos))
    if place is not None:
        dataset = cache_images(dataset, CACHED, place)
    again = dataset.take(np.arange(images) % len(dataset))
    transforms = (RandomResizedCrop(PIXELS), HorizontalFlip(), Normalize(MEAN, STD))
    loader = FileLoader(again, BATCH, transforms, shuffle=True, workers=workers)

    def one_pass() -> None:
        assert sum(len(labels) for _, labels in loader) == images

    return one_pass


def _paddle(photos: str, images: int, workers: int, backend: str) -> Callable[[], None]:
    import paddle
    import paddle.vision.transforms as T

    paddle.vision.set_image_backend(backend)
    transform = T.Compose(
        [
            T.RandomResizedCrop(PIXELS),
            T.RandomHorizontalFlip(),
            T.Transpose(),  # an array; as a tensor it would be slower
            T.Normalize([255 * m for m in MEAN], [255 * s for s in STD]),
        ]
    )
    dataset = paddle.vision.datasets.DatasetFolder(photos, transform=transform)
    dataset.samples = [dataset.samples[i % len(dataset.samples)] for i in range(images)]
    # With workers in every pass: one that follows a pass without them may wait for ever.
    loader = paddle.io.DataLoader(dataset, batch_size=BATCH, shuffle=True, num_workers=workers)

    def one_pass() -> None:
        assert sum(len(labels) for _, labels in loader) == images

    return one_pass


if __name__ == "__main__":
    if sys.argv[1:2] == [WORKER]:
        worker(*sys.argv[2:])
    else:
        main()
