"""Work on image files, such as making batches of them, in this process or in worker processes.

Workers are plain Python processes on two pipes: started anew, they inherit neither threads nor
locks of a parent that runs Paddle, need no ``if __name__ == "__main__"`` in the user's script, and
do not import Paddle. They read their tasks to the end of the pipe, which comes when the parent
closes it or dies by whatever cause, and then end at once. Where the system has unnamed shared
memory (Linux), arrays go through it instead of the pipe; unlike ``/dev/shm`` it is as large as the
memory is in a container, too.

Threads would take about 30 MB less for each worker, but are slower: a third of the work holds
Python's global lock, which they and the training then wait for (``benchmarks/folder_threads.py``).
"""

from __future__ import annotations

import itertools
import mmap
import os
import pickle
import queue
import subprocess
import sys
import threading
import traceback
import warnings
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Any, Protocol

from resnet_fit.child import code_for_child
from resnet_fit.errors import RunFailed, UserError, require
from resnet_fit.machine import usable_cores

# Tasks a worker holds: the one it works on and the one it goes on with.
TASKS_EACH = 2
# By default, since each takes memory; who has more cores and waits for data asks for more.
MOST_WORKERS = 8
PIPE_BYTES = 1 << 20


def worker_count(wanted: int | None = None) -> int:
    """How many workers there are to be: by default one for each usable core, at most 8.

    Raises UserError for less than 0, which stands for no worker: who asks does the work.
    """
    if wanted is None:
        return min(usable_cores(), MOST_WORKERS)
    require(wanted >= 0, "workers", wanted, "0 or more")
    return wanted


class Recipe(Protocol):
    """What is to be done, again and again; the same in every process."""

    def make(self, task: Any) -> Any:
        """Do one task."""


class Team:
    """Makes what tasks ask for, by worker processes that stay for the next time.

    Starting them takes longer than many a small data set's epoch.
    """

    def __init__(self) -> None:
        self._idle: Workers | None = None

    @contextmanager
    def make_all(
        self, recipe: Recipe, tasks: Iterable[Any], workers: int
    ) -> Iterator[Iterator[Any]]:
        """Give what is made of each task, in their order; tasks are drawn a little ahead.

        ``workers`` processes do it, or with 0 whoever asks for the next one. The arrays of a result
        hold until the next one is asked for. When this is left before the last result, whatever the
        workers are doing, they end.
        """
        if workers == 0:
            yield map(recipe.make, tasks)
            return
        pool, self._idle = self._idle, None
        if pool is None or not pool.fits(recipe, workers):
            pool = Workers(workers, recipe)
        try:
            yield pool.make_all(tasks)
        except BaseException:
            pool.close()
            raise
        if pool.waiting:
            pool.close()
        else:
            self._idle = pool

    def close(self) -> None:
        """End the workers that wait."""
        if self._idle is not None:
            self._idle.close()
        self._idle = None


class Workers:
    """Processes that follow one recipe; tasks are dealt in turn, results taken in the same order.

    They end with `close`, with the last reference to this, or with the program.
    """

    def __init__(self, count: int, recipe: Recipe) -> None:
        self._recipe = _pickled(recipe)
        self._workers: list[_Worker] = []
        self.close = weakref.finalize(self, _end, self._workers)
        self._sent = self._taken = 0
        try:
            for _ in range(count):
                self._workers.append(_Worker())
                self._workers[-1].write(self._recipe)
        except BaseException:
            self.close()
            raise

    def fits(self, recipe: Recipe, count: int) -> bool:
        """Whether these are so many, or more, that follow this recipe."""
        return len(self._workers) >= count and _pickled(recipe) == self._recipe

    def make_all(self, tasks: Iterable[Any]) -> Iterator[Any]:
        """Yield what is made of each task; no worker runs dry while there are any.

        Raises what a worker raised, and RunFailed if one died.
        """
        ahead = iter(tasks)
        while True:
            for task in itertools.islice(ahead, len(self._workers) * TASKS_EACH - self.waiting):
                self._next(self._sent).send(task)
                self._sent += 1
            if not self.waiting:
                return
            self._taken += 1
            yield self._next(self._taken - 1).take()

    @property
    def waiting(self) -> int:
        """Tasks whose results were not taken."""
        return self._sent - self._taken

    def _next(self, task: int) -> _Worker:
        return self._workers[task % len(self._workers)]


def _pickled(recipe: Recipe) -> bytes:
    try:
        return pickle.dumps(recipe)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UserError(
            f"transforms cannot go to worker processes ({error}); use workers: 0"
        ) from error


def _end(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.process.kill()
    for worker in workers:
        worker.close()


class _Worker:
    """One process, its two pipes, and the memory it shares."""

    def __init__(self) -> None:
        slots = _make_slots()
        descriptors = [slot.file.fileno() for slot in slots]
        start = code_for_child(f"from resnet_fit.data.workers import main; main({descriptors})")
        # One core each: threads of numpy's linear algebra and OpenCV would be in each other's way.
        # Memory that is freed is kept, for the next batch.
        environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "OPENCV_FOR_THREADS_NUM": "1",
            "MALLOC_MMAP_MAX_": "0",
            "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", start],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            pass_fds=descriptors,
            start_new_session=True,  # Ctrl-C is for the parent, which ends its workers
        )
        for stream in (self.process.stdin, self.process.stdout):
            _widen(_stream(stream))
        self._slots = slots
        self._turns = itertools.cycle(slots or [None])

    def write(self, message: bytes) -> None:
        try:
            _stream(self.process.stdin).write(message)
            _stream(self.process.stdin).flush()
        except BrokenPipeError:
            raise self._death() from None

    def send(self, task: Any) -> None:
        self.write(pickle.dumps(task, pickle.HIGHEST_PROTOCOL))

    def take(self) -> Any:
        """The next result, or raise what the worker raised."""
        answer, slot = _stream(self.process.stdout), next(self._turns)
        try:
            made, sizes = pickle.load(answer)
            if isinstance(made, Exception):
                raise made
            buffers = slot.parts(sizes) if slot else [_read(answer, size) for size in sizes]
        except EOFError:
            raise self._death() from None
        return pickle.loads(made, buffers=buffers)

    def close(self) -> None:
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            with suppress(BrokenPipeError):
                _stream(stream).close()
        for slot in self._slots:
            slot.file.close()

    def _death(self) -> RunFailed:
        code = self.process.wait()
        cause = f"killed by signal {-code}"
        cause += ", perhaps for want of memory" if code == -9 else ""
        if code >= 0:
            cause = f"exit code {code}; its last words are above"
        return RunFailed(f"a data worker died ({cause})")


def _stream(stream: IO[bytes] | None) -> Any:
    assert stream is not None  # every one of them is a pipe
    return stream


def _widen(pipe: Any) -> None:
    """Give a pipe more room than usual, where the system has that and the user may have more."""
    with suppress(ImportError, AttributeError, OSError):
        import fcntl

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


def _read(stream: Any, size: int) -> memoryview:
    buffer = memoryview(bytearray(size))
    if stream.readinto(buffer) < size:
        raise EOFError
    return buffer


class _Slot:
    """Memory that a worker and its parent share: room for the arrays of one result.

    Each worker has one for each task it may hold, and takes them in turn: the task that comes to
    use the same one again is sent after this one's result was used.
    """

    def __init__(self, descriptor: int) -> None:
        # As a file object it cannot be taken for another file after it was closed.
        self.file = os.fdopen(descriptor, "r+b", buffering=0)
        self._memory: mmap.mmap | None = None

    def parts(self, sizes: Sequence[int]) -> list[memoryview]:
        """Pieces of these sizes, one behind the other."""
        total = max(1, sum(sizes))
        if self._memory is None or len(self._memory) < total:
            if self.file.seek(0, os.SEEK_END) < total:
                self.file.truncate(total)
            self._memory = mmap.mmap(self.file.fileno(), total)
        whole, ends = memoryview(self._memory), itertools.accumulate(sizes)
        return [whole[end - size : end] for size, end in zip(sizes, ends, strict=True)]


def _make_slots() -> list[_Slot]:
    """A worker's slots, or none where the system has no such memory."""
    if not hasattr(os, "memfd_create"):
        return []
    return [_Slot(os.memfd_create("resnet-fit")) for _ in range(TASKS_EACH)]


def main(descriptors: Sequence[int]) -> None:
    """Be a worker: read a recipe and tasks from standard input, write results to the output.

    ``descriptors`` are those of its slots.
    """
    # Whatever a decoder prints must not get between the batches.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()
    slots = itertools.cycle([_Slot(descriptor) for descriptor in descriptors] or [None])
    try:
        recipe: Recipe = pickle.load(sys.stdin.buffer)
    except EOFError:  # the parent was gone before we were there
        return
    except Exception as error:
        reason = f"{error}; they have to be in a module that can be imported, or use workers: 0"
        _answer(answers, None, UserError(f"a data worker cannot load the transforms ({reason})"))
        return

    def read() -> None:
        try:
            while True:
                tasks.put(pickle.load(sys.stdin.buffer))
        finally:  # the parent is gone, or wants us gone
            os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    for slot in slots:
        task = tasks.get()
        try:
            made = recipe.make(task)
        except UserError as error:
            made = type(error)(str(error))
        except RunFailed as error:
            made = error
        except Exception as error:
            traceback.print_exc()
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            made = RunFailed(f"a data worker failed ({reason})")
        _answer(answers, slot, made)


def _answer(answers: IO[bytes], slot: _Slot | None, made: Any) -> None:
    """Send what was made, or an exception: arrays go beside the rest, without a copy of them."""
    buffers: list[pickle.PickleBuffer] = []
    head = made
    if not isinstance(made, Exception):
        head = pickle.dumps(made, pickle.HIGHEST_PROTOCOL, buffer_callback=buffers.append)
    views = [buffer.raw() for buffer in buffers]
    sizes = [view.nbytes for view in views]
    if slot:
        for view, part in zip(views, slot.parts(sizes), strict=True):
            part[:] = view
    pickle.dump((head, sizes), answers, pickle.HIGHEST_PROTOCOL)
    if not slot:
        answers.writelines(views)
    answers.flush()
