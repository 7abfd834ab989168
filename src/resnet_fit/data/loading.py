"""Loaders: batches ``[images, labels]`` for ``paddle.Model``, as numpy arrays.

All random numbers depend on (seed, epoch, batch) alone, so a resumed run gets the same batches as
an uninterrupted one. A thread prepares the next batches ahead. Leaving the loop early ends this
thread and the worker processes; after a whole epoch the workers stay for the next one, until the
loader is closed or deleted.
"""

from __future__ import annotations

import importlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import zip_longest
from typing import Any

import numpy as np

from resnet_fit.data.augment import Operation, Unfinished, compose
from resnet_fit.data.batching import Batching, PreparedBatch, Task
from resnet_fit.data.dataset import ArrayDataset, Dataset, FileDataset
from resnet_fit.data.dealing import Dealer, Turn
from resnet_fit.data.mixing import Mix, different_partners
from resnet_fit.data.resizing import Sizes, at_size
from resnet_fit.data.sampling import Sampler, in_order, shuffled
from resnet_fit.data.seeding import generator, phases
from resnet_fit.data.transforms import Geometric, OnBadImage, split_operations
from resnet_fit.data.workers import Team, worker_count
from resnet_fit.errors import UserError, require

# [images, labels]: arrays, or with `on_device` images as a Paddle tensor.
Batch = list[Any]

# Batches that the thread prepares ahead.
AHEAD = 2
# Imported only where it is used, since it imports Paddle.
ON_DEVICE = "resnet_fit.data.augment.on_device"


class Loader:
    """The base of both loaders: order, mixing, position and prefetching.

    ``sampler`` chooses the images of an epoch; by default all, in random order with ``shuffle``.
    ``mix`` turns labels into probabilities, float32 ``[B, classes]``. ``sizes`` gives the pixels a
    side of each epoch, for progressive resizing. With ``on_device`` the last operations and mixing
    run on Paddle's current device, which gets uint8 images; operations without a device version,
    and those before them, run on the host. ``dealer`` distributes the batches over several
    processes, ``group`` at a time; ``len`` then counts batches of this process, positions count
    those of all.

    After an iteration that was left early, the next one restarts the same epoch.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        sampler: Sampler | None = None,
        mix: Mix | None = None,
        sizes: Sizes | None = None,
        on_device: bool = False,
        dealer: Dealer | None = None,
        group: int = 1,
    ) -> None:
        count = len(dataset)
        require(batch_size > 0, "batch_size", batch_size, "1 or more")
        require(seed >= 0, "seed", seed, "0 or more")
        self.batches = count // batch_size if drop_last else -(-count // batch_size)
        """Batches in an epoch, over all processes."""
        if self.batches == 0:
            raise UserError(
                f"no batch to load: {count} images, batch size {batch_size}"
                + (", and the incomplete last batch is dropped" if count else "")
            )
        self.dataset: Dataset = dataset
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.labels, self._classes = dataset.labels, len(dataset.classes)
        self._sampler = sampler or (shuffled if shuffle else in_order)
        self._mix, self._sizes = mix, sizes
        self._dealer, self._group = dealer or Dealer(), group
        self._device: Any = importlib.import_module(ON_DEVICE) if on_device else None
        self._start = self._position = (0, 0)
        self._first = 0

    def set_position(self, epoch: int, batch: int = 0) -> None:
        """Make the next iteration start at ``batch`` of ``epoch``.

        The position after an epoch's last batch is the start of the next epoch.
        """
        exists = epoch >= 0 and 0 <= batch <= self.batches
        expected = f"an epoch from 0 and a batch of 0..{self.batches}"
        require(exists, "position", (epoch, batch), expected)
        whole = batch == self.batches
        self._start = self._position = (epoch + 1, 0) if whole else (epoch, batch)
        self._first = self._start[1]

    def state_dict(self) -> dict[str, Any]:
        """The position, (epoch, batches delivered in it), for a checkpoint."""
        return {"position": list(self._position)}

    def set_state_dict(self, state: dict[str, Any]) -> None:
        self.set_position(*state["position"])

    def close(self) -> None:
        """End idle worker processes; another epoch would start new ones."""

    def __len__(self) -> int:
        """Batches of this process in the running iteration, or in the next one when none runs."""
        return len(self._turns(self._first))

    def _turns(self, first: int) -> list[Turn]:
        """The batches of an epoch that this process takes, from ``first`` on."""
        images = min(self.count, self.batches * self.batch_size)
        return self._dealer.turns(self.batches, first, self._group, self.batch_size, images)

    def __iter__(self) -> Iterator[Batch]:
        epoch, first = self._position = self._start
        self._start, self._first = (epoch, 0), first
        turns = self._turns(first)
        numbers = [turn.batch for turn in turns]
        thread = ThreadPoolExecutor(1, thread_name_prefix="resnet-fit-loader")
        pending: deque[Future[Batch | None]] = deque()
        delivered = False
        try:
            with self._source(epoch, numbers) as make:
                for number in numbers[:AHEAD]:
                    pending.append(thread.submit(make, number))
                for turn, later in zip_longest(turns, numbers[AHEAD:]):
                    arrays = pending.popleft().result()
                    if later is not None:
                        pending.append(thread.submit(make, later))
                    self._position, self._dealer.turn = (epoch, turn.done), turn
                    if arrays is not None:
                        delivered = True
                        yield self._finished(arrays, epoch, turn.batch)
            if first == 0 and not delivered:
                raise UserError(f"none of the {self.count} images could be read")
            self._start = self._position = (epoch + 1, 0)
        finally:
            thread.shutdown(cancel_futures=True)
            self._first = 0

    def _source(
        self, epoch: int, numbers: Sequence[int]
    ) -> AbstractContextManager[Callable[[int], Batch | None]]:
        """A context with the function that makes a batch, called for each of ``numbers`` in order.

        It returns None for a batch without a readable image.
        """
        raise NotImplementedError

    def _order(self, epoch: int) -> np.ndarray:
        return self._sampler(self.labels, generator(self.seed, epoch))

    def _split(self, operations: Sequence[Operation]) -> int | None:
        """How many operations run on the host; None without a device, for all."""
        return self._device and self._device.host_operations(operations)

    def _mixed(self, images: Any, rows: np.ndarray, epoch: int, batch: int) -> Batch:
        """Add the labels of ``rows`` and mix; unfinished images are returned with their rows."""
        if isinstance(images, Unfinished):
            return [images, rows]
        labels = self.labels[rows]
        if self._mix is None:
            return [images, labels]
        # batch_size + 1 is never a row index, so this random stream is unique.
        rng = generator(self.seed, epoch, batch, self.batch_size + 1)
        partners = different_partners(rows)
        return [*self._mix(images, labels, self._classes, rng, partners, self._device)]

    def _finished(self, made: Batch, epoch: int, batch: int) -> Batch:
        """Run the device's part of the work on a batch, just before it is delivered."""
        if self._device is None:
            return made
        images, rows = made
        return self._mixed(self._device.finish(images), rows, epoch, batch)

    def _rows(self, order: np.ndarray, batch: int) -> np.ndarray:
        return order[batch * self.batch_size : (batch + 1) * self.batch_size]


class ArrayLoader(Loader):
    """Batches of a data set in memory: augmented images ``[B, C, H, W]``, labels int64 ``[B]``.

    Without operations images are uint8; `Normalize` makes them float32. Each batch has new arrays,
    so a consumer may keep them. ``options`` are those of `Loader`. Raises UserError if there is no
    batch to load.
    """

    dataset: ArrayDataset

    def __init__(
        self,
        dataset: ArrayDataset,
        batch_size: int,
        augment: Sequence[Operation] = (),
        **options: Any,
    ) -> None:
        super().__init__(dataset, batch_size, **options)
        self._augment = tuple(augment)
        compose(augment)  # refuses a wrong order now, not at the first batch

    def _source(
        self, epoch: int, numbers: Sequence[int]
    ) -> AbstractContextManager[Callable[[int], Batch]]:
        order = self._order(epoch)
        operations = at_size(self._augment, self._sizes, epoch)
        augment = compose(operations, self._split(operations))
        phase = phases(self.seed, epoch, self.count)

        def make(batch: int) -> Batch:
            rows = self._rows(order, batch)
            rng = generator(self.seed, epoch, batch)
            images = augment(self.dataset.images[rows], rng, phase[rows])
            return self._mixed(images, rows, epoch, batch)

        return nullcontext(make)


class FileLoader(Loader):
    """Batches of image files, decoded and transformed by worker processes.

    If the data set has decoded copies (`cache_images`), these are read instead of the files.
    ``transforms`` has the geometric operations first, which must bring all images to one size.
    ``workers`` is passed to `worker_count`; with 0 the prefetching thread does the work. An
    unreadable file raises a UserError with its name, or is left out of its batch and added to
    `skipped` with ``on_bad_image="skip"``. ``options`` are those of `Loader`.
    """

    dataset: FileDataset

    def __init__(
        self,
        dataset: FileDataset,
        batch_size: int,
        transforms: Sequence[Geometric | Operation],
        *,
        workers: int | None = None,
        on_bad_image: OnBadImage = "error",
        **options: Any,
    ) -> None:
        super().__init__(dataset, batch_size, **options)
        known = on_bad_image in ("error", "skip")
        require(known, "on_bad_image", on_bad_image, "error or skip")
        self.workers = worker_count(workers)
        self.skipped: dict[str, str] = {}
        """Path below the data set's root and error of every file that was skipped so far."""
        self._team = Team()
        self._transforms = tuple(transforms)
        self._on_bad_image = on_bad_image
        split_operations(transforms)  # refuses a wrong order now, not at the first batch

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"skipped": dict(self.skipped)}

    def set_state_dict(self, state: dict[str, Any]) -> None:
        super().set_state_dict(state)
        self.skipped = dict(state["skipped"])

    def close(self) -> None:
        self._team.close()

    @contextmanager
    def _source(
        self, epoch: int, numbers: Sequence[int]
    ) -> Iterator[Callable[[int], Batch | None]]:
        order = self._order(epoch)
        # Workers return uint8, a quarter of the bytes of float32; the parent normalises.
        geometry, inside, after = split_operations(at_size(self._transforms, self._sizes, epoch))
        here = self._split([*inside, *after])
        if here is not None:  # the device runs all operations that it can
            inside, after = inside[:here], (*inside[here:], *after)
        recipe = Batching(geometry, inside, self.seed, self._on_bad_image)
        finishing = compose(after, self._split(after))
        phase = phases(self.seed, epoch, self.count)

        def task(batch: int) -> Task:
            rows, copies = self._rows(order, batch), self.dataset.copies
            return Task(
                tuple(self.dataset.paths[i] for i in rows),
                tuple(None if copies is None else copies[i] for i in rows),
                epoch,
                batch,
                phase[rows],
            )

        def finish(batch: int, made: PreparedBatch) -> Batch | None:
            rows = self._rows(order, batch)
            names = [self.dataset.name(rows[row]) for row, _ in made.bad]
            self.skipped.update(zip(names, (reason for _, reason in made.bad), strict=True))
            if not len(made.rows):
                return None
            # batch_size is never a row index, so this random stream is unique.
            rng = generator(self.seed, epoch, batch, self.batch_size)
            rows = rows[made.rows]
            images = finishing(made.images, rng, phase[rows])
            return self._mixed(images, rows, epoch, batch)

        tasks = map(task, numbers)
        workers = min(self.workers, len(numbers))
        with self._team.make_all(recipe, tasks, workers) as made:
            yield lambda batch: finish(batch, next(made))
