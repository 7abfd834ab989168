"""Batches from image files, or other work on them, in this process or in worker processes.

Workers are plain Python processes on two pipes: started anew, they inherit neither threads nor
locks of a parent that runs Paddle, need no ``if __name__ == "__main__"`` in the user's script, and
do not import Paddle. They read their tasks to the end of the pipe, which comes when the parent
closes it or dies by whatever cause, and then end at once.
"""

from __future__ import annotations

import itertools
import os
import pickle
import queue
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, Any, Literal, Protocol

import numpy as np

from resnet_fit.data import augment
from resnet_fit.data.paths import Copy
from resnet_fit.data.seeding import generator
from resnet_fit.data.transforms import BadImage, Geometric, load, load_copy
from resnet_fit.errors import RunFailed, UserError

# Tasks a worker holds: the one it works on and the one it goes on with.
TASKS_EACH = 2
PIPE_BYTES = 1 << 20


class Recipe(Protocol):
    """What is to be done, again and again; the same in every process."""

    def make(self, task: Any) -> Any:
        """Do one task."""


@dataclass(frozen=True)
class Task:
    """The files of one batch, their decoded copies where there are any, and where it is."""

    paths: tuple[str, ...]
    copies: tuple[Copy | None, ...]
    epoch: int
    batch: int
    phases: np.ndarray


@dataclass(frozen=True)
class Made:
    """A batch: uint8 ``[B, 3, H, W]`` of the rows that could be read, and why others could not."""

    images: np.ndarray
    rows: np.ndarray
    bad: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True)
class Batching:
    """How files become a batch of uint8 images of one size."""

    geometry: tuple[Geometric, ...]
    operations: tuple[augment.Operation, ...]
    seed: int
    on_bad_image: Literal["error", "skip"]

    def make(self, task: Task) -> Made:
        """Decode and transform the files of one batch.

        Raises BadImage for an unreadable file unless those are skipped, UserError if the transforms
        leave images of different sizes.
        """
        images = np.empty((0, 3, 0, 0), np.uint8)
        rows: list[int] = []
        bad: list[tuple[int, str]] = []
        for row, (path, copy) in enumerate(zip(task.paths, task.copies, strict=True)):
            rng = generator(self.seed, task.epoch, task.batch, row)
            try:
                pixels = self._pixels(path, copy, rng)
            except BadImage as error:
                if self.on_bad_image == "error":
                    raise
                bad.append((row, str(error)))
                continue
            if not rows:
                images = np.empty((len(task.paths), *pixels.shape), np.uint8)
            elif pixels.shape != images.shape[1:]:
                raise UserError(
                    f"{path}: {_size(pixels)} after its transforms, others of the batch "
                    f"{_size(images)}; add random_resized_crop, or resize and center_crop"
                )
            images[len(rows)] = pixels
            rows.append(row)
        images = augment.compose(self.operations)(
            images[: len(rows)],
            generator(self.seed, task.epoch, task.batch),
            task.phases[rows],
        )
        if images.dtype != np.uint8:
            images = (images + 0.5).astype(np.uint8)
        return Made(images, np.array(rows, np.intp), tuple(bad))

    def _pixels(self, path: str, copy: Copy | None, rng: np.random.Generator) -> np.ndarray:
        try:
            if copy is None:
                image = load(path, self.geometry, rng)
            else:
                image = load_copy(copy, self.geometry, rng)
            return np.asarray(image).transpose(2, 0, 1)
        except BadImage:
            raise
        except UserError as error:
            raise UserError(f"{path}: {error}") from error


def _size(images: np.ndarray) -> str:
    return f"{images.shape[-1]}x{images.shape[-2]}"


@contextmanager
def make_all(recipe: Recipe, tasks: Iterable[Any], workers: int) -> Iterator[Iterator[Any]]:
    """Give what is made of each task, in their order; tasks are drawn a little ahead.

    ``workers`` processes do it, or with 0 whoever asks for the next one.
    """
    if workers == 0:
        yield map(recipe.make, tasks)
        return
    with Workers(workers, recipe) as pool:
        yield pool.make_all(tasks)


class Workers:
    """Processes that follow one recipe; tasks are dealt in turn, results taken in the same order.

    As a context manager it ends its processes, whatever they are doing.
    """

    def __init__(self, count: int, recipe: Recipe) -> None:
        try:
            self._recipe = pickle.dumps(recipe)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise UserError(
                f"transforms cannot go to worker processes ({error}); use workers: 0"
            ) from error
        self._count = count
        self._processes: list[subprocess.Popen[bytes]] = []
        self._sent = self._taken = 0

    def __enter__(self) -> Workers:
        path = os.pathsep.join(p or os.getcwd() for p in sys.path)
        # One core each: the threads of numpy's linear algebra would only be in each other's way.
        environment = os.environ | {
            "PYTHONPATH": path,
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        try:
            for _ in range(self._count):
                process = subprocess.Popen(
                    [sys.executable, "-c", "from resnet_fit.data.workers import main; main()"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env=environment,
                    pipesize=PIPE_BYTES,
                    start_new_session=True,  # Ctrl-C is for the parent, which ends its workers
                )
                self._processes.append(process)
                _stream(process.stdin).write(self._recipe)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
            for stream in (process.stdin, process.stdout):
                with suppress(BrokenPipeError):
                    _stream(stream).close()

    def make_all(self, tasks: Iterable[Any]) -> Iterator[Any]:
        """Yield what is made of each task; no worker runs dry while there are any.

        Raises what a worker raised, and RunFailed if one died.
        """
        ahead = iter(tasks)
        while True:
            for task in itertools.islice(ahead, self._count * TASKS_EACH - self._waiting):
                self._send(task)
            if not self._waiting:
                return
            yield self._take()

    @property
    def _waiting(self) -> int:
        return self._sent - self._taken

    def _send(self, task: Any) -> None:
        process = self._processes[self._sent % self._count]
        self._sent += 1
        try:
            pickle.dump(task, _stream(process.stdin), pickle.HIGHEST_PROTOCOL)
            _stream(process.stdin).flush()
        except BrokenPipeError:
            raise _death(process) from None

    def _take(self) -> Any:
        process = self._processes[self._taken % self._count]
        self._taken += 1
        answer = _stream(process.stdout)
        try:
            made, sizes = pickle.load(answer)
            if isinstance(made, Exception):
                raise made
            buffers = [np.empty(size, np.uint8) for size in sizes]
            for buffer in buffers:
                if answer.readinto(buffer.data) < buffer.nbytes:
                    raise EOFError
        except EOFError:
            raise _death(process) from None
        return pickle.loads(made, buffers=buffers)


def _stream(stream: IO[bytes] | None) -> Any:
    assert stream is not None  # every one of them is a pipe
    return stream


def _death(process: subprocess.Popen[bytes]) -> RunFailed:
    code = process.wait()
    cause = f"killed by signal {-code}" + (", perhaps for want of memory" if code == -9 else "")
    if code >= 0:
        cause = f"exit code {code}; its last words are above"
    return RunFailed(f"a data worker died ({cause})")


def main() -> None:
    """Be a worker: read a recipe and tasks from standard input, write batches to the output."""
    # Whatever a decoder prints must not get between the batches.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()
    try:
        recipe: Recipe = pickle.load(sys.stdin.buffer)
    except EOFError:  # the parent was gone before we were there
        return
    except Exception as error:
        reason = f"{error}; they have to be in a module that can be imported, or use workers: 0"
        _answer(answers, UserError(f"a data worker cannot load the transforms ({reason})"))
        return

    def read() -> None:
        try:
            while True:
                tasks.put(pickle.load(sys.stdin.buffer))
        finally:  # the parent is gone, or wants us gone
            os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    while True:
        task = tasks.get()
        try:
            made = recipe.make(task)
        except UserError as error:
            _answer(answers, type(error)(str(error)))
        except RunFailed as error:
            _answer(answers, error)
        except Exception as error:
            traceback.print_exc()
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            _answer(answers, RunFailed(f"a data worker failed ({reason})"))
        else:
            # Arrays go behind the rest as they are, without a copy of them.
            buffers: list[pickle.PickleBuffer] = []
            head = pickle.dumps(made, pickle.HIGHEST_PROTOCOL, buffer_callback=buffers.append)
            _answer(answers, head, buffers)


def _answer(
    answers: IO[bytes], made: bytes | Exception, buffers: Sequence[pickle.PickleBuffer] = ()
) -> None:
    views = [buffer.raw() for buffer in buffers]
    pickle.dump((made, [view.nbytes for view in views]), answers, pickle.HIGHEST_PROTOCOL)
    for view in views:
        answers.write(view)
    answers.flush()
