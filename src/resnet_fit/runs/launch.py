"""Several processes on this machine that train one network, started, watched and ended together.

The first one has this program's standard streams; what the others say goes to files, which are kept
where something failed. `paddle.distributed.launch` starts processes too, on several machines as
well; here a failure is told in one line, and its cause is that of the process that failed first.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from resnet_fit.errors import LostProcess, RunFailed, UserError
from resnet_fit.parallel import SIGNALS

# Seconds that the others have to end by themselves once one has failed.
GRACE = 8.0
LOOK = 0.05
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Process:
    """One of the processes; ``log`` has what it said, but for the first one."""

    rank: int
    popen: subprocess.Popen[bytes]
    log: Path | None


def launch(program: Sequence[str], processes: int) -> int:
    """Run a program in so many processes, and return the exit code of the first.

    Args:
        program: with its arguments.
        processes: how many.

    Raises:
        RunFailed: one of them failed; the message says which, and why.
        UserError: one of them found a mistake of the user's.
    """
    if os.name != "posix":
        raise UserError("--processes: works on Linux and macOS; use paddle.distributed.launch")
    logs = Path(tempfile.mkdtemp(prefix="resnet-fit-"))
    started = [_start(program, rank, address, logs) for rank, address in _addresses(processes)]
    with _forwarded(started) as received:
        failed = _wait(started)
    if failed is None:
        shutil.rmtree(logs, ignore_errors=True)
        return 0
    return _tell(failed, logs, received)


def _addresses(processes: int) -> Iterator[tuple[int, dict[str, str]]]:
    """For each process the environment by which Paddle's processes find each other."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    endpoints = [f"127.0.0.1:{port + 1 + rank}" for rank in range(processes)]  # names alone
    for rank in range(processes):
        yield (
            rank,
            {
                "PADDLE_MASTER": f"127.0.0.1:{port}",
                "PADDLE_TRAINER_ID": str(rank),
                "PADDLE_TRAINERS_NUM": str(processes),
                "PADDLE_LOCAL_SIZE": str(processes),
                "PADDLE_TRAINER_ENDPOINTS": ",".join(endpoints),
                "PADDLE_CURRENT_ENDPOINT": endpoints[rank],
                "FLAGS_selected_gpus": str(rank),
            },
        )


def _start(program: Sequence[str], rank: int, address: dict[str, str], logs: Path) -> Process:
    log = logs / f"process-{rank}.log" if rank else None
    output = None if log is None else log.open("wb")
    popen = subprocess.Popen(
        program,
        env=os.environ | address,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,  # signals of the terminal reach them through this program alone
        preexec_fn=_end_with_parent,
    )
    if output is not None:
        output.close()
    return Process(rank, popen, log)


def _end_with_parent() -> None:
    """Let the kernel send SIGTERM when this program is gone, however it ended (on Linux)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


@contextmanager
def _forwarded(processes: Sequence[Process]) -> Iterator[list[int]]:
    """Pass signals on to all processes, and note them."""
    received: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for process in processes:
            with suppress(ProcessLookupError):
                process.popen.send_signal(number)

    before = {
        number: signal.signal(number, forward)
        for number in SIGNALS
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(processes: Sequence[Process]) -> Process | None:
    """Wait for all; if one fails, for some seconds more. Returns the one that failed, or None."""
    deadline: float | None = None
    order: list[Process] = []
    while len(order) < len(processes):
        for process in processes:
            if process not in order and process.popen.poll() is not None:
                order.append(process)
        if deadline is None and any(process.popen.returncode for process in order):
            deadline = time.monotonic() + GRACE
        if deadline is not None and time.monotonic() > deadline:
            for process in processes:
                if process.popen.poll() is None:
                    process.popen.kill()
                    process.popen.wait()
        time.sleep(LOOK)
    failed = [process for process in order if process.popen.returncode]
    causes = [process for process in failed if process.popen.returncode != LostProcess.exit_code]
    return next(iter(causes or failed), None)


def _last_words(process: Process) -> str:
    """The last message of a process that wrote to a file."""
    if process.log is None:
        return ""
    lines = process.log.read_text("utf-8", "replace").splitlines()
    told = [line for line in lines if line.startswith("resnet-fit: ")]
    return (told or lines or [""])[-1].removeprefix("resnet-fit: ").strip()


def _tell(failed: Process, logs: Path, received: Sequence[int]) -> int:
    """The exit code of what has told its own error, or an error that says what failed."""
    code = failed.popen.returncode
    told = (
        failed.log is None and code > 0 and code != LostProcess.exit_code
    )  # by the first process itself
    stopped = -code in received or code - 128 in received
    if told or stopped:
        shutil.rmtree(logs, ignore_errors=True)
        return code if code > 0 else 128 - code
    if code < 0:
        reason = f"was ended by {signal.Signals(-code).name}"
    else:
        reason = f"failed: {_last_words(failed)}"
    message = f"process {failed.rank} {reason}; what the others said is in {logs}"
    raise UserError(message) if code == 2 else RunFailed(message)
