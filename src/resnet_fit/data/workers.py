"""Worker processes for work on image files, such as loading batches.

A worker is a new Python process with two pipes. It is not forked, so it has no threads or locks of
a parent that runs Paddle, needs no ``if __name__ == "__main__"`` in the user's script, and does not
import Paddle. It reads tasks from its pipe and exits at the end of the pipe, when the parent closes
it or dies. On Linux arrays are passed in anonymous shared memory instead of the pipe; unlike
``/dev/shm``, this is not limited to a small size in containers.

Threads would save about 30 MB for each worker, but are slower: a third of the work holds Python's
global lock, so that they and the training wait for it (``benchmarks/folder_threads.py``).
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
from resnet_fit.errors import RunFailed, UserError, first_line, require
from resnet_fit.machine import usable_cores

# Tasks sent to a worker: the current one and the next.
TASKS_EACH = 2
# The default's upper bound, since each worker takes memory; users may set more.
MOST_WORKERS = 8
PIPE_BYTES = 1 << 20


def worker_count(wanted: int | None = None) -> int:
    """The number of workers: by default one for each usable core, at most 8.

    0 means no worker process: the caller does the work. Raises UserError for a negative number.
    """
    if wanted is None:
        return min(usable_cores(), MOST_WORKERS)
    require(wanted >= 0, "workers", wanted, "0 or more")
    return wanted


class Recipe(Protocol):
    """The function that all workers apply to their tasks, with its settings; pickled once."""

    def make(self, task: Any) -> Any:
        """Return the result of one task."""


class Team:
    """Runs tasks in worker processes, and keeps these for the next call.

    Starting workers takes longer than an epoch of a small data set.
    """

    def __init__(self) -> None:
        self._idle: Workers | None = None

    @contextmanager
    def make_all(
        self, recipe: Recipe, tasks: Iterable[Any], workers: int
    ) -> Iterator[Iterator[Any]]:
        """An iterator over the results, in the order of the tasks, which are read a little ahead.

        With 0 workers the caller does the work. The arrays of a result are valid until the next
        result is requested. Leaving the context before the last result ends the workers at once.
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
        """End idle workers."""
        if self._idle is not None:
            self._idle.close()
        self._idle = None


class Workers:
    """A pool of worker processes with one recipe; tasks are distributed round robin.

    The processes end with `close`, with the last reference to this object, or with the program.
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
        """Whether this pool has the same recipe and at least ``count`` workers."""
        return len(self._workers) >= count and _pickled(recipe) == self._recipe

    def make_all(self, tasks: Iterable[Any]) -> Iterator[Any]:
        """Yield the results in order; each worker always has a next task while there are any.

        Raises a worker's exception, or RunFailed if a worker died.
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
        """Tasks whose results were not read yet."""
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
    """One worker process with its two pipes and its ring of shared memory slots."""

    def __init__(self) -> None:
        slots = _make_slots()
        descriptors = [slot.file.fileno() for slot in slots]
        start = code_for_child(f"from resnet_fit.data.workers import main; main({descriptors})")
        # One thread each: more threads of numpy and OpenCV would compete for the cores.
        # malloc keeps freed memory for the next batch.
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
            start_new_session=True,  # Ctrl-C goes to the parent only, which ends its workers
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
        """Return the next result, or raise the worker's exception."""
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
        cause += ", perhaps out of memory" if code == -9 else ""
        if code >= 0:
            cause = f"exit code {code}; its error is printed above"
        return RunFailed(f"a data worker died ({cause})")


def _stream(stream: IO[bytes] | None) -> Any:
    assert stream is not None  # all streams are pipes
    return stream


def _widen(pipe: Any) -> None:
    """Enlarge a pipe's buffer, if the system supports it and the user's limit allows it."""
    with suppress(ImportError, AttributeError, OSError):
        import fcntl

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


def _read(stream: Any, size: int) -> memoryview:
    buffer = memoryview(bytearray(size))
    if stream.readinto(buffer) < size:
        raise EOFError
    return buffer


class _Slot:
    """A slot of shared memory for the arrays of one result.

    Each worker has a ring of `TASKS_EACH` slots. A slot is safe to reuse: the next task for it is
    sent only after its previous result was consumed.
    """

    def __init__(self, descriptor: int) -> None:
        # A file object: a bare number could belong to another file after it is closed.
        self.file = os.fdopen(descriptor, "r+b", buffering=0)
        self._memory: mmap.mmap | None = None

    def parts(self, sizes: Sequence[int]) -> list[memoryview]:
        """Consecutive pieces of these sizes; the slot grows if it is too small."""
        total = max(1, sum(sizes))
        if self._memory is None or len(self._memory) < total:
            if self.file.seek(0, os.SEEK_END) < total:
                self.file.truncate(total)
            self._memory = mmap.mmap(self.file.fileno(), total)
        whole, ends = memoryview(self._memory), itertools.accumulate(sizes)
        return [whole[end - size : end] for size, end in zip(sizes, ends, strict=True)]


def _make_slots() -> list[_Slot]:
    """The slots of a worker; none if the system has no anonymous shared memory."""
    if not hasattr(os, "memfd_create"):
        return []
    return [_Slot(os.memfd_create("resnet-fit")) for _ in range(TASKS_EACH)]


def main(descriptors: Sequence[int]) -> None:
    """The worker process: reads a recipe and tasks from standard input, writes results to output.

    ``descriptors`` are the file descriptors of its slots.
    """
    # Output that a decoder prints must not mix with the results.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    warnings.simplefilter("ignore")
    tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()
    slots = itertools.cycle([_Slot(descriptor) for descriptor in descriptors] or [None])
    try:
        recipe: Recipe = pickle.load(sys.stdin.buffer)
    except EOFError:  # the parent has ended already
        return
    except Exception as error:
        reason = f"{error}; define them in a module that can be imported, or use workers: 0"
        _answer(answers, None, UserError(f"a data worker cannot load the transforms ({reason})"))
        return

    def read() -> None:
        try:
            while True:
                tasks.put(pickle.load(sys.stdin.buffer))
        finally:  # the parent has ended or closed the pipe
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
            made = RunFailed(f"a data worker failed ({first_line(error)})")
        _answer(answers, slot, made)


def _answer(answers: IO[bytes], slot: _Slot | None, made: Any) -> None:
    """Send a result or an exception; arrays go outside the pickle, without a copy."""
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
