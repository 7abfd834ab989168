"""Data parallel training: this process's rank, all-reduces and barriers.

The launcher (`paddle.distributed.launch`, or ``--processes``) sets the number of processes by
environment variables. `start` creates the process group and then hides it from Paddle's high-level
API, so that `paddle.Model` trains as in one process: all communication is in this library.

On CPUs the backend is gloo. Its all-reduce fails after waiting for 30 seconds, and no setting
changes that. Long waits, for files that the first process writes, therefore use `first` and `meet`,
which poll Paddle's key-value store without a time limit.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import signal
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from resnet_fit.errors import LostProcess, RunFailed, UserError

_SIGNALS = [getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, n)]
# Seconds between two polls of the store; a poll takes 0.04 s.
POLL_SECONDS = 0.05

F = TypeVar("F", bound=Callable[..., Any])


class _Group:
    """The processes of this run. A single process needs no `start`."""

    def __init__(self) -> None:
        self.rank = int(os.environ.get("PADDLE_TRAINER_ID", "0"))
        self.size = int(os.environ.get("PADDLE_TRAINERS_NUM", "1"))
        self.here = int(os.environ.get("PADDLE_LOCAL_SIZE", self.size))
        self.store: Any = None
        self.meetings = 0


_group = _Group()


def rank() -> int:
    """The number of this process, from 0."""
    return _group.rank


def size() -> int:
    """The number of processes that train together."""
    return _group.size


def size_here() -> int:
    """The number of these processes on this machine."""
    return _group.here


def is_first() -> bool:
    """Whether this process is the one that writes the run's folder and to the console."""
    return _group.rank == 0


def start(device: str) -> None:
    """Create the process group; every process calls it before its first `paddle.Model`.

    Args:
        device: ``cpu`` or ``gpu:N``, on which this process computes.

    Raises:
        RunFailed: the processes could not connect.
    """
    if _group.size == 1 or _group.store is not None:
        return
    if device == "cpu":
        os.environ["PADDLE_DISTRI_BACKEND"] = "gloo"
    else:
        os.environ.setdefault("FLAGS_selected_gpus", device.partition(":")[2])
    import paddle
    from paddle.distributed import init_parallel_env

    try:
        from paddle.base import core

        with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            init_parallel_env()
        _group.store = core.create_or_get_global_tcp_store()
    except Exception as error:  # network errors have many types
        raise RunFailed(f"the {_group.size} processes did not find each other: {error}") from error
    # Otherwise Paddle's high-level API splits batches, gathers evaluations and adds a reducer.
    os.environ["PADDLE_TRAINERS_NUM"], os.environ["PADDLE_TRAINER_ID"] = "1", "0"
    paddle.set_device(device)


def collective(function: F) -> F:
    """Wrap a function of Paddle that communicates, so that its failure is a one-line LostProcess.

    Signals are blocked during the call: in the middle of a message they break the connection.
    """

    @functools.wraps(function)
    def told(*arguments: Any, **options: Any) -> Any:
        held = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            return function(*arguments, **options)
        except (RuntimeError, ValueError) as error:
            raise LostProcess(
                f"process {_group.rank} of {_group.size}: another process of this run has ended, "
                "or did not answer for 30 s; its own output says why. The last checkpoint is "
                "untouched"
            ) from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)

    return told  # type: ignore[return-value]


@collective
def add_up(tensor: Any) -> None:
    """All-reduce a tensor by sum, in place. Not for float16, whose sum is inf in gloo."""
    from paddle.distributed import all_reduce

    all_reduce(tensor)


def total(numbers: Sequence[float]) -> list[float]:
    """Sums over all processes, in float64; identical in every process, bit for bit."""
    if _group.size == 1:
        return list(numbers)
    import numpy as np
    import paddle

    tensor = paddle.to_tensor(np.array(numbers, np.float64))
    add_up(tensor)
    return tensor.numpy().tolist()


def largest(numbers: Sequence[float]) -> list[float]:
    """Maxima over all processes, element by element."""
    if _group.size == 1:
        return list(numbers)
    import numpy as np
    import paddle
    from paddle.distributed import ReduceOp, all_reduce

    tensor = paddle.to_tensor(np.array(numbers, np.float64))
    collective(all_reduce)(tensor, ReduceOp.MAX)
    return tensor.numpy().tolist()


def first(work: Callable[[], Any]) -> Any:
    """Run ``work`` in the first process while the others wait, without a time limit.

    Args:
        work: a function whose result can be stored as JSON.

    Returns:
        the result of ``work``, in every process.

    Raises:
        UserError, RunFailed: as raised by ``work``, in every process.
        LostProcess: the first process has ended.
    """
    if _group.size == 1:
        return work()
    _group.meetings += 1
    key = f"resnet-fit/{_group.meetings}"
    if is_first():
        return _publish(key, work)
    _wait_for(key, 1)
    said = json.loads(collective(_group.store.get)(f"{key}/said"))
    kinds = {"UserError": UserError, "RunFailed": RunFailed}
    if said["error"] is not None:
        raise kinds[said["error"]](said["value"])
    return said["value"]


def _publish(key: str, work: Callable[[], Any]) -> Any:
    """Run ``work`` and store its result or error for the other processes."""
    said: dict[str, Any] = {"error": None, "value": None}
    try:
        said["value"] = work()
        return said["value"]
    except BaseException as error:
        said["error"] = "UserError" if isinstance(error, UserError) else "RunFailed"
        said["value"] = str(error) or type(error).__name__
        raise
    finally:
        collective(_group.store.set)(f"{key}/said", json.dumps(said).encode())
        _count(key, 1)


def meet() -> None:
    """A barrier without a time limit: wait until all processes have called it."""
    if _group.size == 1:
        return
    _group.meetings += 1
    key = f"resnet-fit/{_group.meetings}"
    _count(key, 1)
    _wait_for(key, _group.size)


@collective
def _count(key: str, more: int) -> int:
    """Add to a counter in the store and return its new value."""
    return _group.store.add(key, more)


def _wait_for(key: str, count: int) -> None:
    """Poll a counter until it reaches ``count``. Signals are handled between two polls."""
    while _count(key, 0) < count:
        time.sleep(POLL_SECONDS)
