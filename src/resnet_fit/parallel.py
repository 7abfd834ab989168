"""Several processes that train one network: which one this is, and what they agree on.

A launcher says by environment variables how many there are (`paddle.distributed.launch`, or
``--processes``). `start` makes them a group and then hides the others from Paddle's high-level API,
so that `paddle.Model` trains as it does alone: what is to be added up over the processes is added
up here, and nothing else.

On CPUs the group is gloo's. Whoever waits in a sum for more than 30 seconds fails there, and no
setting changes that; so long waits, for files that the first process writes, go through `first` and
`meet`, which ask Paddle's key-value store and wait as long as it takes.
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
# Seconds between two looks at the store; one look takes 0.04 s.
LOOK = 0.05

F = TypeVar("F", bound=Callable[..., Any])


class _Group:
    """The processes of this run. One alone needs no start."""

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
    """How many processes train together; 1 for one alone."""
    return _group.size


def size_here() -> int:
    """How many of them share this machine."""
    return _group.here


def is_first() -> bool:
    """Whether this process owns folder, console and curves."""
    return _group.rank == 0


def start(device: str) -> None:
    """Make the processes a group; to be called by all of them before the first `paddle.Model`.

    Args:
        device: ``cpu`` or ``gpu:N``, on which this process computes.

    Raises:
        RunFailed: not all of them came.
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
    except Exception as error:  # whatever the network's errors become
        raise RunFailed(f"the {_group.size} processes did not find each other: {error}") from error
    # Paddle's high-level API would cut batches, gather evaluations and install a reducer.
    os.environ["PADDLE_TRAINERS_NUM"], os.environ["PADDLE_TRAINER_ID"] = "1", "0"
    paddle.set_device(device)


def collective(function: F) -> F:
    """Let a function of Paddle's wait for other processes, and tell its failure in one line.

    Signals wait meanwhile: amid a message they end Paddle's connection. Its own errors name sockets
    and time limits.
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
    """Add a tensor up over all processes, in place. Not for float16, in which gloo's sum is inf."""
    from paddle.distributed import all_reduce

    all_reduce(tensor)


def total(numbers: Sequence[float]) -> list[float]:
    """Sums over all processes, in float64; equal to the last bit on each of them."""
    if _group.size == 1:
        return list(numbers)
    import numpy as np
    import paddle

    tensor = paddle.to_tensor(np.array(numbers, np.float64))
    add_up(tensor)
    return tensor.numpy().tolist()


def largest(numbers: Sequence[float]) -> list[float]:
    """The largest of what the processes have, number by number."""
    if _group.size == 1:
        return list(numbers)
    import numpy as np
    import paddle
    from paddle.distributed import ReduceOp, all_reduce

    tensor = paddle.to_tensor(np.array(numbers, np.float64))
    collective(all_reduce)(tensor, ReduceOp.MAX)
    return tensor.numpy().tolist()


def first(work: Callable[[], Any]) -> Any:
    """Let the first process do something, while the others wait as long as it takes.

    Args:
        work: returns what JSON can hold.

    Returns:
        what ``work`` returned, in every process.

    Raises:
        UserError, RunFailed: as ``work`` does, in every process.
        LostProcess: the first process has ended.
    """
    if _group.size == 1:
        return work()
    _group.meetings += 1
    key = f"resnet-fit/{_group.meetings}"
    if is_first():
        return _tell(key, work)
    _await(key, 1)
    said = json.loads(collective(_group.store.get)(f"{key}/said"))
    kinds = {"UserError": UserError, "RunFailed": RunFailed}
    if said["error"] is not None:
        raise kinds[said["error"]](said["value"])
    return said["value"]


def _tell(key: str, work: Callable[[], Any]) -> Any:
    """Do the work, and let the others know what came of it."""
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
    """Wait until all processes are here, as long as it takes."""
    if _group.size == 1:
        return
    _group.meetings += 1
    key = f"resnet-fit/{_group.meetings}"
    _count(key, 1)
    _await(key, _group.size)


@collective
def _count(key: str, more: int) -> int:
    """Add to a counter of the store, and return what it has come to."""
    return _group.store.add(key, more)


def _await(key: str, count: int) -> None:
    """Look at a counter until it has come so far. Signals get through between two looks."""
    while _count(key, 0) < count:
        time.sleep(LOOK)
