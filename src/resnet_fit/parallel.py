"""Data parallel training: this process's rank, all-reduces and barriers.

The launcher (`paddle.distributed.launch`, or ``--processes``) sets the number of processes by
environment variables. `start` creates the process group and then hides it from Paddle's high-level
API, so that `paddle.Model` trains as in one process: all communication is in this library.

Tensors are added up by Paddle: by NCCL, or on CPUs by gloo, whose all-reduce fails after 30 seconds
of waiting, and no setting changes that. All else goes through a channel of our own (`channel`),
which has no time limit and knows which process has ended. `add_up` is therefore to be called right
after an exchange by the channel, such as `total`.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import secrets
import signal
import struct
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from resnet_fit import channel
from resnet_fit.channel import Channel
from resnet_fit.errors import Interrupted, LostProcess, RunFailed, UserError, first_line, told

SIGNALS = [getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, n)]
ADDRESS = "resnet-fit/address"

F = TypeVar("F", bound=Callable[..., Any])


class _Group:
    """The processes of this run. A single process needs no `start`."""

    def __init__(self) -> None:
        self.rank = int(os.environ.get("PADDLE_TRAINER_ID", "0"))
        self.size = int(os.environ.get("PADDLE_TRAINERS_NUM", "1"))
        self.here = int(os.environ.get("PADDLE_LOCAL_SIZE", self.size))
        self.channel: Channel | None = None
        self.has_started = False


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


def hide_connections() -> None:
    """Before Paddle is imported: it would tell of each connection on standard error."""
    if _group.size > 1:
        os.environ.setdefault("GLOG_minloglevel", "1")


def connect() -> Channel:
    """Connect the processes with each other, where that has not been done.

    Raises:
        RunFailed: they did not find each other.
    """
    if _group.channel is None:
        hide_connections()
        try:
            with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                from paddle.base import core

            _group.channel = _open(core.create_or_get_global_tcp_store())
        except RunFailed:
            raise
        except Exception as error:  # network errors have many types
            raise _not_found(error) from error
    return _group.channel


def _open(store: Any) -> Channel:
    """The channel, whose address the first process tells by Paddle's key-value store."""
    if not is_first():
        address = json.loads(store.get(ADDRESS))
        key = bytes.fromhex(address["key"])
        return channel.connect(address["host"], address["port"], _group.rank, _group.size, key)
    key = secrets.token_bytes(32)

    def publish(host: str, port: int) -> None:
        store.set(ADDRESS, json.dumps({"host": host, "port": port, "key": key.hex()}).encode())

    host = os.environ.get("PADDLE_MASTER", "127.0.0.1").rpartition(":")[0]
    return channel.serve(host, _group.size, publish, key)


def _not_found(error: Exception) -> RunFailed:
    return RunFailed(f"the {_group.size} processes did not find each other: {_reason(error)}")


def start(device: str) -> None:
    """Create the process group; every process calls it before its first `paddle.Model`.

    Args:
        device: ``cpu`` or ``gpu:N``, on which this process computes.

    Raises:
        RunFailed: the processes could not connect.
        UserError: they are to compute on devices of different kinds.
    """
    if _group.size == 1 or _group.has_started:
        return
    kinds = texts("device", device.partition(":")[0])
    if len(set(kinds)) > 1:
        raise UserError(f"training.device: the processes are on {', '.join(kinds)}")
    if device == "cpu":
        os.environ["PADDLE_DISTRI_BACKEND"] = "gloo"
    else:
        os.environ.setdefault("FLAGS_selected_gpus", device.partition(":")[2])
    import paddle
    from paddle.distributed import init_parallel_env

    try:
        with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            init_parallel_env()
    except Exception as error:  # network errors have many types
        raise _not_found(error) from error
    _group.has_started = True
    # Otherwise Paddle's high-level API splits batches, gathers evaluations and adds a reducer.
    os.environ["PADDLE_TRAINERS_NUM"], os.environ["PADDLE_TRAINER_ID"] = "1", "0"
    paddle.set_device(device)


@contextmanager
def telling() -> Iterator[None]:
    """Tell the other processes of an error that ends this one."""
    try:
        yield
    except BaseException as error:
        leave(error)
        raise


def leave(error: BaseException) -> None:
    """Tell the other processes why this one ends.

    Where they have not found each other yet, and some are on another machine, this one connects for
    it: the launchers on other machines do not see that it has ended, and its processes would wait.
    """
    if isinstance(error, (LostProcess, Interrupted)):
        return
    if _group.channel is None:
        if _group.here == _group.size:
            return
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)  # the others may never come
        with contextlib.suppress(RunFailed):
            connect()
    if _group.channel is not None:
        _group.channel.leave(_reason(error), isinstance(error, UserError))


def _reason(error: BaseException) -> str:
    """What others are told of an error, in one line."""
    message = told(error)
    return first_line(error) if message is None else message.strip().partition("\n")[0]


def collective(function: F) -> F:
    """Wrap a function of Paddle that communicates, so that its failure is a one-line LostProcess.

    Signals are blocked during the call: in the middle of a message they break the connection.
    """

    @functools.wraps(function)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        held = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            return function(*arguments, **options)
        except (RuntimeError, ValueError) as error:
            if _group.channel is None:
                raise
            try:
                _group.channel.find_lost()
            except RunFailed as lost:
                raise lost from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)

    return wrapped  # type: ignore[return-value]


@collective
def add_up(tensor: Any) -> None:
    """All-reduce a tensor by sum, in place. Not for float16, whose sum is inf in gloo."""
    from paddle.distributed import all_reduce

    all_reduce(tensor)


def share(tensors: Sequence[Any]) -> None:
    """Give every process the first one's values of tensors, in place."""
    if _group.size == 1:
        return
    from paddle.distributed import broadcast

    meet()
    for tensor in tensors:
        if tensor.size:
            collective(broadcast)(tensor, 0)


def total(numbers: Sequence[float]) -> list[float]:
    """Sums over all processes, in float64; identical in every process, bit for bit."""
    return _combined("a sum", numbers, sum)


def largest(numbers: Sequence[float]) -> list[float]:
    """Maxima over all processes, element by element."""
    return _combined("a maximum", numbers, max)


def _combined(
    name: str, numbers: Sequence[float], combine: Callable[[tuple[float, ...]], float]
) -> list[float]:
    if _group.size == 1:
        return list(numbers)
    form = struct.Struct(f"<{len(numbers)}d")

    def combined(contents: Sequence[bytes]) -> bytes:
        rows = [form.unpack(content) for content in contents]
        return form.pack(*map(combine, zip(*rows, strict=True)))

    what = f"{name} of {len(numbers)} numbers"
    return list(form.unpack(connect().exchange(what, form.pack(*numbers), combined)))


def texts(name: str, text: str) -> list[str]:
    """The texts of all processes, by rank; ``name`` says what they are."""
    if _group.size == 1:
        return [text]

    def listed(contents: Sequence[bytes]) -> bytes:
        return json.dumps([content.decode() for content in contents]).encode()

    return json.loads(connect().exchange(name, text.encode(), listed))


def meet() -> None:
    """A barrier without a time limit: wait until all processes have called it."""
    total([])


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
    if is_first():
        return _publish(work)
    said = json.loads(connect().await_first("the first one's work"))
    kinds = {"UserError": UserError, "RunFailed": RunFailed}
    if said["error"] is not None:
        raise kinds[said["error"]](said["value"])
    return said["value"]


def _publish(work: Callable[[], Any]) -> Any:
    """Run ``work`` and tell its result or error to the other processes."""
    said: dict[str, Any] = {"error": None, "value": None}
    try:
        said["value"] = work()
    except BaseException as error:
        said["error"] = "UserError" if isinstance(error, UserError) else "RunFailed"
        said["value"] = _reason(error)
        raise
    finally:
        connect().publish("the first one's work", json.dumps(said).encode())
    return said["value"]


def first_bytes(content: Callable[[], bytes]) -> bytes:
    """What ``content`` returns in the first process, in every process."""
    if _group.size == 1:
        return content()
    if not is_first():
        return connect().await_first("the first one's bytes")
    found = content()
    connect().publish("the first one's bytes", found)
    return found
