"""Echoes against peers that behave in all the ways peers do."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from pacsteward.base.clock import SystemClock
from pacsteward.dicom.dimse import Admitted, Caller, DimseServer, Limits, Refused
from pacsteward.feature import House
from pacsteward.features.peers.dimse import ECHO
from pacsteward.features.peers.echo import EchoResult, echo, echo_peer
from pacsteward.security import Peer

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def peer_at(port: int, host: str = "127.0.0.1") -> Peer:
    return Peer("CT1", host, port)


def ask(peer: Peer, timeout_s: float = 2.0) -> EchoResult:
    return asyncio.run(echo_peer(peer, "PACSTEWARD", timeout_s=timeout_s))


@asynccontextmanager
async def archive(
    house: House, admit: Callable[[Caller], Admitted | Refused]
) -> AsyncIterator[int]:
    """Run the real DIMSE door with this room's C-ECHO."""
    server = DimseServer(
        [ECHO.bind(house)],
        admit,
        Limits(),
        accepts_called=lambda called: called == "CT1",
        clock=SystemClock(),
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    await server.start("127.0.0.1", port)
    try:
        yield port
    finally:
        await server.stop(1)


def everybody(_caller: Caller) -> Admitted:
    return Admitted(frozenset({"dimse.echo"}), is_registered=True)


def test_peer_that_answers_knows_us_by_our_title(house: House) -> None:
    async def run() -> EchoResult:
        async with archive(house, everybody) as port:
            return await echo_peer(peer_at(port), "PACSTEWARD")

    result = asyncio.run(run())
    assert result.succeeded, result
    assert result.what.startswith("CT1 answered, and knows us as PACSTEWARD.")
    assert result.took_ms > 0


def test_peer_that_does_not_know_us_says_so_with_what_to_do(house: House) -> None:
    def nobody(_caller: Caller) -> Refused:
        return Refused(1, 1, 3, why="unknown")

    async def run() -> EchoResult:
        async with archive(house, nobody) as port:
            return await echo_peer(peer_at(port), "PACSTEWARD")

    result = asyncio.run(run())
    assert not result.succeeded
    assert "(1/1/3)" in result.what
    assert result.why == "It does not know our AE title PACSTEWARD."
    assert "Have PACSTEWARD" in result.remedy


def test_peer_with_another_name(house: House) -> None:
    async def run() -> EchoResult:
        async with archive(house, everybody) as port:
            return await echo_peer(Peer("CT9", "127.0.0.1", port), "PACSTEWARD")

    result = asyncio.run(run())
    assert "is not called CT9" in result.why


def test_peer_that_may_not_echo_with_us(house: House) -> None:
    def nothing(_caller: Caller) -> Admitted:
        return Admitted(frozenset(), is_registered=True)

    async def run() -> EchoResult:
        async with archive(house, nothing) as port:
            return await echo_peer(peer_at(port), "PACSTEWARD")

    result = asyncio.run(run())
    assert not result.succeeded
    assert result.remedy


def test_machine_where_nothing_listens() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    result = ask(peer_at(port))
    assert "nothing listens on port" in result.why
    assert "correct the port" in result.remedy


def test_name_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    async def unknown(*_args: object, **_named: object) -> list[object]:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", unknown)
    result = ask(peer_at(104, "nowhere.invalid"))
    assert result.why == "Nobody knows the name nowhere.invalid."


def talking(talk: Talk) -> EchoResult:
    async def run() -> EchoResult:
        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            return await echo_peer(peer_at(port), "PACSTEWARD", timeout_s=0.5)

    return asyncio.run(asyncio.wait_for(run(), 10))


def test_program_that_hangs_up() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.close()

    result = talking(hang_up)
    assert result.what == "CT1 broke off the connection."
    assert "TLS" in result.remedy


def test_program_that_is_a_web_server() -> None:
    async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    assert not talking(web).succeeded


def test_program_that_says_nothing() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    result = talking(silent)
    assert not result.succeeded
    assert "did not answer" in result.what


def test_result_is_remembered(house: House) -> None:
    async def run() -> None:
        async with archive(house, everybody) as port:
            house.peers.add(peer_at(port))
            await echo(house, "CT1")

    asyncio.run(run())
    state = house.peers.states()["CT1"]
    assert state.last_echo_succeeded
    assert state.last_echo_at is not None
