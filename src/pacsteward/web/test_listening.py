"""Callers are spread over processes that share one address."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest

from pacsteward.base.errors import Unavailable
from pacsteward.web import listening
from pacsteward.web.listening import Acceptor, Listener, Seat


class Greeter(asyncio.Protocol):
    """Says which process it stands for, and counts the caller until he has left."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(b"%d" % self._seat.number)

    def connection_lost(self, exc: Exception | None) -> None:
        self._seat.went()


@contextmanager
def at_work(seat: Seat) -> Iterator[None]:
    """Take callers at `seat` in a loop of its own, as a process would."""
    seat = replace(seat, sockets=[one.dup() for one in seat.sockets])
    begun = threading.Event()
    stop: list[object] = []

    async def run() -> None:
        end = asyncio.Event()
        loop = asyncio.get_running_loop()
        acceptor = Acceptor(seat, lambda: Greeter(seat))
        stop.append(lambda: loop.call_soon_threadsafe(end.set))
        begun.set()
        await end.wait()
        acceptor.close()
        await acceptor.wait_closed()

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    try:
        assert begun.wait(10)
        yield
    finally:
        stop[0]()  # type: ignore[operator]
        thread.join()


@pytest.fixture
def listener() -> Iterator[Listener]:
    """Give one for two processes, on a port that is free."""
    made = Listener("127.0.0.1", 0, 2)
    yield made
    made.close()


def call(listener: Listener, stack: ExitStack) -> int:
    """Call, and stay; return the number of the process that took the call."""
    caller = stack.enter_context(
        socket.create_connection(listener.sockets[0].getsockname()[:2], timeout=10)
    )
    return int(caller.recv(1))


def test_callers_who_stay_are_spread_evenly(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whoever has more callers waits for the other, however slow this machine is.
    monkeypatch.setattr(listening, "GIVE_WAY_S", 30.0)
    with at_work(listener.seat(0)), at_work(listener.seat(1)), ExitStack() as stack:
        taken = [call(listener, stack) for _ in range(8)]
    assert sorted(taken) == [0] * 4 + [1] * 4


def test_process_that_hangs_keeps_nobody_waiting(listener: Listener) -> None:
    listener.seat(1)
    with at_work(listener.seat(0)), ExitStack() as stack:
        assert [call(listener, stack) for _ in range(3)] == [0, 0, 0]


def test_nobody_gives_way_to_a_process_that_has_died(listener: Listener) -> None:
    seat = listener.seat(0)
    listener.seat(1)
    seat.came()
    assert seat.is_busier
    listener.vacate(1)
    assert not seat.is_busier
    listener.seat(1)
    assert seat.is_busier


def test_callers_wait_for_a_process_that_begins_anew(listener: Listener) -> None:
    with at_work(listener.seat(0)), ExitStack() as stack:
        call(listener, stack)
    address = listener.sockets[0].getsockname()[:2]
    with socket.create_connection(address, timeout=10) as caller, at_work(listener.seat(1)):
        assert caller.recv(1) == b"1"


def test_two_callers_at_once_are_a_crowd(listener: Listener) -> None:
    seat = listener.seat(0)
    for _ in range(2):
        seat.came()
        seat.went()
    assert not listener.is_crowded
    seat.came()
    seat.came()
    assert listener.is_crowded


def test_port_that_is_taken_is_told_to_whoever_needs_it(listener: Listener) -> None:
    listener.sockets[0].listen()
    port = listener.sockets[0].getsockname()[1]
    open_before = len(os.listdir("/proc/self/fd"))
    other = Listener("127.0.0.1", port, 1)
    # What was garbage before may be gone.
    assert len(os.listdir("/proc/self/fd")) <= open_before
    with pytest.raises(Unavailable, match=f"Port {port} on 127.0.0.1 could not be opened"):
        other.seat(0)


def test_a_machine_without_one_of_the_families_listens_on_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = socket.socket

    def refuse(family: int, *more: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return real(family, *more)

    both = [
        (family, socket.SOCK_STREAM, 6, "", address)
        for family, address in (
            (socket.AF_INET6, ("::1", 0, 0, 0)),
            (socket.AF_INET, ("127.0.0.1", 0)),
        )
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
    monkeypatch.setattr(socket, "socket", refuse)
    one = Listener("localhost", 0, 1)
    assert [found.family for found in one.seat(0).sockets] == [socket.AF_INET]
    one.close()
    both.pop()
    with pytest.raises(Unavailable, match="Address family not supported"):
        Listener("localhost", 0, 1).seat(0)


def test_a_caller_for_whom_nothing_could_be_made_is_counted_no_more(listener: Listener) -> None:
    seat = listener.seat(0)

    def fail() -> asyncio.Protocol:
        raise RuntimeError("the test's")

    async def call() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        acceptor = Acceptor(replace(seat, sockets=[one.dup() for one in seat.sockets]), fail)
        address = seat.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(*address[:2])
        assert await reader.read() == b""
        writer.close()
        acceptor.close()

    asyncio.run(call())
    assert seat.counts[0] == 0
