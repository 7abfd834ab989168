"""What it costs to know the files of a data set again, before a run starts or goes on.

    python benchmarks/digest.py [--quick] [--folder DIR]

10,000 files of 110 KB, as photographs of ImageNet have: microseconds a file for their names
(``data.compare: names``), for three pieces of each (``content``), and for all bytes of each, which
this library does not read. First from the system's memory, then from the disk, where the system
does as it is asked and forgets the files.

What is made in DIR, or where temporary files go, is deleted at the end.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from alternate import machine, report

from resnet_fit.data.dataset import FileDataset
from resnet_fit.data.digest import THREADS, content_digest, names_digest

FILES, BYTES = 10_000, 110_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the files")
    parser.add_argument("--folder", help="where to make the files")
    options = parser.parse_args()
    print(machine())
    with TemporaryDirectory(dir=options.folder) as place:
        dataset = make_files(Path(place), FILES // 10 if options.quick else FILES)
        ways: dict[str, Callable[[FileDataset], object]] = {
            "names": names_digest,
            "pieces": content_digest,
            "whole": whole_digest,
        }
        figures: dict[str, float] = {}
        for name, way in ways.items():
            warm = min(microseconds(way, dataset) for _ in range(3))
            forget(dataset)
            cold = microseconds(way, dataset)
            print(f"{name:6}: {warm:6.1f} us a file from memory, {cold:6.1f} from the disk")
            figures |= {f"{name}_us": warm, f"{name}_from_disk_us": cold}
    report("digest", **figures)


def make_files(folder: Path, count: int) -> FileDataset:
    content = np.random.default_rng(0).bytes(BYTES)
    paths = [str(folder / f"{i:06}.jpg") for i in range(count)]
    for i, path in enumerate(paths):
        Path(path).write_bytes(i.to_bytes(8, "little") + content[8:])
    return FileDataset(paths, np.zeros(count, np.int64), ("a",))


def whole_digest(dataset: FileDataset) -> str:
    def digest(path: str) -> bytes:
        return hashlib.sha256(Path(path).read_bytes()).digest()

    with ThreadPoolExecutor(THREADS) as pool:
        return hashlib.sha256(b"".join(pool.map(digest, dataset.paths))).hexdigest()


def forget(dataset: FileDataset) -> None:
    os.sync()
    for path in dataset.paths:
        handle = os.open(path, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def microseconds(way: Callable[[FileDataset], object], dataset: FileDataset) -> float:
    started = time.perf_counter()
    way(dataset)
    return 1e6 * (time.perf_counter() - started) / len(dataset)


if __name__ == "__main__":
    main()
