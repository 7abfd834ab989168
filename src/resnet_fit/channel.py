"""Short messages between the processes of a run, over connections of their own.

The first process is connected to each of the others. Unlike a collective of Paddle an exchange has
no time limit, lets Python handle signals while it waits, and when a process has ended it says
which one and why: a process that fails leaves a last message, and the connection of one that was
killed is closed by the system.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge, wait
from typing import NoReturn

from resnet_fit.errors import LostProcess, RunFailed, UserError

# The first byte of a message: what is exchanged, the end of the run, and a collective that failed.
CONTENT, END, LOST = b"c", b"e", b"l"
CONNECT_SECONDS = 60.0
# Of whoever connects to the first process, until it has shown that it knows the key.
HANDSHAKE_SECONDS = 5
# Seconds in which the cause of a failed collective becomes known.
VERDICT_SECONDS = 5.0
# A machine without power or network is noticed after 60 + 4 * 15 seconds.
KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}


class Channel:
    """The connections of one process.

    Args:
        rank, size: of this process.
        connections: by rank; the first process has one to each other, which have only its.
    """

    def __init__(self, rank: int, size: int, connections: dict[int, Connection]) -> None:
        self.rank, self.size = rank, size
        self._connections = connections
        self._has_left = False

    def exchange(
        self, name: str, content: bytes, combine: Callable[[Sequence[bytes]], bytes]
    ) -> bytes:
        """Let the first process combine what all have, and return that everywhere.

        Args:
            name: of what is exchanged, which must be the same in all processes.
            content: of this process.
            combine: called in the first process with the contents in the order of the ranks.

        Raises:
            LostProcess: another process has ended, or exchanges something else.
            UserError: by a mistake of the user's.
        """
        if self.rank:
            self._send(0, _named(name, content))
            return self.await_first(name)
        contents = {0: content}
        waiting = dict(self._connections)
        while waiting:
            for rank in _ready(waiting):
                contents[rank] = self._receive(rank, name)
                del waiting[rank]
        combined = combine([contents[rank] for rank in range(self.size)])
        self.publish(name, combined)
        return combined

    def publish(self, name: str, content: bytes) -> None:
        """From the first process to all others, which take it by `await_first`."""
        for rank in self._connections:
            self._send(rank, _named(name, content))

    def await_first(self, name: str) -> bytes:
        """What the first process publishes next, under this name."""
        return self._receive(0, name)

    def leave(self, reason: str, is_mistake: bool = False) -> None:
        """Tell the others why this process ends; not for what they know already."""
        if not self._has_left:
            self._tell(f"process {self.rank} of {self.size}: {reason}", is_mistake)

    def find_lost(self, heard_of: Sequence[int] = ()) -> NoReturn:
        """Find out which process has ended, after a collective of Paddle has failed.

        Args:
            heard_of: processes that are there, and lost another one as well.

        Raises:
            LostProcess, UserError: naming it.
        """
        deadline = time.monotonic() + VERDICT_SECONDS * (1 if self.rank == 0 else 2)
        if self.rank:
            self._send(0, LOST)
        silent = {rank: c for rank, c in self._connections.items() if rank not in heard_of}
        while silent and (left := deadline - time.monotonic()) > 0:
            for rank in _ready(silent, left):
                self._read(rank)
                if self.rank == 0:
                    del silent[rank]
        names = [f"process {rank} of {self.size}" for rank in silent]
        self._end(f"{' and '.join(names) or 'another process'} did not answer for 30 s")

    def _receive(self, rank: int, name: str) -> bytes:
        """What a process has sent next, which is to have this name."""
        kind, message = self._read(rank)
        if kind == LOST:
            self.find_lost([rank])
        theirs, _, content = message.partition(b"\0")
        if theirs != name.encode():
            self._end(
                f"process {rank} of {self.size} has come to {theirs.decode()}, and process "
                f"{self.rank} to {name}: something runs in one of them alone"
            )
        return content

    def _read(self, rank: int) -> tuple[bytes, bytes]:
        """The next message of a process: its kind and its content."""
        try:
            message = self._connections[rank].recv_bytes()
        except (EOFError, OSError):
            self._end(
                f"process {rank} of {self.size} has ended without a message: it was killed, as "
                "where memory runs out, or its machine is gone"
            )
        kind, content = message[:1], message[1:]
        if kind == END:
            end = json.loads(content)
            self._end(end["text"], end["is_mistake"])
        return kind, content

    def _send(self, rank: int, message: bytes) -> None:
        try:
            self._connections[rank].send_bytes(message)
        except OSError:
            while True:  # until its last message, or the end of what it has sent
                self._read(rank)

    def _end(self, text: str, is_mistake: bool = False) -> NoReturn:
        """Raise the error that ends this process; the first one tells the others before."""
        if self.rank == 0:
            self._tell(text, is_mistake)
        self._has_left = True
        if is_mistake:
            raise UserError(text)
        raise LostProcess(f"{text}. The last checkpoint is untouched")

    def _tell(self, text: str, is_mistake: bool) -> None:
        self._has_left = True
        end = END + json.dumps({"text": text, "is_mistake": is_mistake}).encode()
        for connection in self._connections.values():
            with suppress(OSError):
                connection.send_bytes(end)


def serve(host: str, size: int, publish: Callable[[str, int], object], key: bytes) -> Channel:
    """The channel of the first process, once all others have connected.

    Args:
        host: by which other machines know this one.
        publish: tells the others the host and port.
        key: a secret that the others know.

    Raises:
        RunFailed: some are missing, and none has connected for a minute.
    """
    connections: dict[int, Connection] = {}
    try:
        server = socket.create_server((host, 0))
    except OSError:  # behind an address translation this machine has another address
        server = socket.create_server(("", 0))
    with server:
        publish(host, server.getsockname()[1])
        deadline = time.monotonic() + CONNECT_SECONDS
        while len(connections) < size - 1:
            try:
                server.settimeout(max(0.0, deadline - time.monotonic()))
                accepted, _ = server.accept()
            except (TimeoutError, BlockingIOError):  # the latter where no time is left
                missing = sorted({*range(1, size)} - connections.keys())
                raise RunFailed(f"processes {missing} of {size} did not connect") from None
            connection = _connection(accepted)
            with suppress(OSError, EOFError, ValueError, AuthenticationError):  # a stranger
                _limit_reads(connection, HANDSHAKE_SECONDS)
                deliver_challenge(connection, key)
                answer_challenge(connection, key)
                rank = int(connection.recv_bytes())
                _limit_reads(connection, 0)
                connections[rank] = connection
                deadline = time.monotonic() + CONNECT_SECONDS
    return Channel(0, size, connections)


def connect(host: str, port: int, rank: int, size: int, key: bytes) -> Channel:
    """The channel of another process than the first.

    Raises:
        OSError: the first process cannot be reached.
    """
    connection = _connection(socket.create_connection((host, port), CONNECT_SECONDS))
    answer_challenge(connection, key)
    deliver_challenge(connection, key)
    connection.send_bytes(str(rank).encode())
    return Channel(rank, size, {0: connection})


def _ready(connections: dict[int, Connection], seconds: float | None = None) -> list[int]:
    """The ranks from which something has come, once there is one, or none after so long."""
    ready = wait(list(connections.values()), seconds)
    return [rank for rank, connection in connections.items() if connection in ready]


def _named(name: str, content: bytes) -> bytes:
    return CONTENT + name.encode() + b"\0" + content


def _limit_reads(connection: Connection, seconds: int) -> None:
    """Let reads of a connection that take longer fail with an OSError; 0 is no limit.

    The system keeps the limit, since a `Connection` has none for what it reads.
    """
    with socket.socket(fileno=os.dup(connection.fileno())) as same:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", seconds, 0))


def _connection(connected: socket.socket) -> Connection:
    connected.settimeout(None)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEPALIVE.items():
        if hasattr(socket, option):
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return Connection(connected.detach())
