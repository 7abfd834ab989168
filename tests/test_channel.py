"""Processes that exchange messages, here threads, and what they learn of one that has ended."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import Queue
from typing import Any

import pytest

from resnet_fit import channel
from resnet_fit.channel import Channel, connect, serve
from resnet_fit.errors import LostProcess, RunFailed, UserError

KEY = b"secret"


@pytest.fixture
def three() -> Iterator[list[Channel]]:
    address: Queue[tuple[str, int]] = Queue()

    def other(rank: int) -> Channel:
        host, port = address.get()
        address.put((host, port))
        return connect(host, port, rank, 3, KEY)

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(serve, "127.0.0.1", 3, lambda *place: address.put(place), KEY)
        others = [pool.submit(other, rank) for rank in (1, 2)]
        channels = [found.result(20) for found in (first, *others)]
    yield channels
    for each in channels:
        close(each)


def close(ended: Channel) -> None:
    for connection in ended._connections.values():
        connection.close()


def everywhere(channels: Sequence[Channel], work: Callable[[Channel], Any]) -> list[Any]:
    """What each comes to, or the error that it ends with."""

    def told(each: Channel) -> Any:
        try:
            return work(each)
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(channels)) as pool:
        return list(pool.map(told, channels))


def exchanged(each: Channel) -> bytes:
    return each.exchange("names", str(each.rank).encode(), b"-".join)


def test_all_get_what_the_first_one_makes_of_the_contents_by_rank(three):
    for _ in range(3):
        assert everywhere(three, exchanged) == [b"0-1-2"] * 3


def test_large_contents_pass(three):
    def large(each: Channel) -> bytes:
        return each.exchange("large", bytes([each.rank]) * 3_000_000, b"".join)

    for content in everywhere(three, large):
        assert content == b"".join(bytes([rank]) * 3_000_000 for rank in range(3))


def test_a_process_that_is_late_is_waited_for(three):
    def late(each: Channel) -> bytes:
        time.sleep(0.5 if each.rank == 1 else 0)
        return exchanged(each)

    assert everywhere(three, late) == [b"0-1-2"] * 3


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_one_that_was_killed_is_named_by_all_others(three, gone):
    def work(each: Channel) -> Any:
        return close(each) if each.rank == gone else exchanged(each)

    for rank, error in enumerate(everywhere(three, work)):
        if rank != gone:
            assert isinstance(error, LostProcess)
            assert f"process {gone} of 3 has ended without a message" in str(error)


@pytest.mark.parametrize("gone", [0, 1, 2])
@pytest.mark.parametrize(("is_mistake", "kind"), [(True, UserError), (False, LostProcess)])
def test_why_a_process_ends_is_told_to_all_others(three, gone, is_mistake, kind):
    def work(each: Channel) -> Any:
        if each.rank != gone:
            return exchanged(each)
        each.leave("No space left on device", is_mistake)
        return close(each)

    for rank, error in enumerate(everywhere(three, work)):
        if rank != gone:
            assert type(error) is kind
            assert f"process {gone} of 3: No space left on device" in str(error)


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_after_a_collective_that_failed_the_cause_is_found(three, gone):
    def work(each: Channel) -> Any:
        if each.rank == gone:
            time.sleep(0.2)
            each.leave("out of memory")
            return close(each)
        return each.find_lost()

    for rank, error in enumerate(everywhere(three, work)):
        if rank != gone:
            assert f"process {gone} of 3: out of memory" in str(error)


def test_it_is_found_as_well_where_one_was_not_in_the_collective(three):
    def work(each: Channel) -> Any:
        if each.rank == 2:
            return close(each)
        return each.find_lost() if each.rank == 1 else exchanged(each)

    for error in everywhere(three, work)[:2]:
        assert "process 2 of 3 has ended" in str(error)


@pytest.mark.parametrize("silent", [0, 1])
def test_one_that_does_not_answer_is_named(three, silent, monkeypatch):
    monkeypatch.setattr(channel, "VERDICT_SECONDS", 0.2)
    others = [each for each in three if each.rank != silent]
    for error in everywhere(others, lambda each: each.find_lost()):
        assert f"process {silent} of 3 did not answer" in str(error)


def test_processes_at_different_points_are_told(three):
    def work(each: Channel) -> bytes:
        return each.exchange("a" if each.rank == 2 else "b", b"", b"".join)

    for error in everywhere(three, work):
        assert isinstance(error, LostProcess)
        assert "process 2 of 3 has come to a, and process 0 to b" in str(error)


def test_strangers_are_not_let_in():
    address: Queue[tuple[str, int]] = Queue()
    served: Queue[Channel] = Queue()

    def first() -> None:
        served.put(serve("127.0.0.1", 2, lambda *place: address.put(place), KEY))

    thread = threading.Thread(target=first)
    thread.start()
    host, port = address.get()
    with socket.create_connection((host, port)) as stranger:
        stranger.sendall(struct.pack("!i", 5) + b"hello")
    with pytest.raises(Exception, match="digest"):
        connect(host, port, 1, 2, b"another")
    own = connect(host, port, 1, 2, KEY)
    thread.join(20)
    assert everywhere([served.get(), own], exchanged) == [b"0-1"] * 2


def test_a_stranger_that_says_nothing_keeps_nobody_waiting(monkeypatch):
    monkeypatch.setattr(channel, "HANDSHAKE_SECONDS", 1)
    address: Queue[tuple[str, int]] = Queue()
    served: Queue[Channel] = Queue()

    def first() -> None:
        served.put(serve("127.0.0.1", 2, lambda *place: address.put(place), KEY))

    thread = threading.Thread(target=first, daemon=True)
    thread.start()
    host, port = address.get()
    with socket.create_connection((host, port)):
        own = connect(host, port, 1, 2, KEY)
        thread.join(20)
        assert everywhere([served.get(timeout=1), own], exchanged) == [b"0-1"] * 2


def test_those_that_do_not_come_are_named(monkeypatch):
    monkeypatch.setattr(channel, "CONNECT_SECONDS", 0.2)
    with pytest.raises(RunFailed, match=r"processes \[1, 2\] of 3 did not connect"):
        serve("127.0.0.1", 3, lambda *place: None, KEY)
