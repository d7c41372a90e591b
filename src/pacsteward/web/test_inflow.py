"""Bodies that are given piece by piece: whole, bounded in time, and nothing of the next request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from pacsteward.web.inflow import Inflow, inflow_of
from pacsteward.web.limits import Limits
from pacsteward.web.test_support import connected, converse

PATH = b"/dicom-web/studies"

Talk = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Memory:
    """Memory to receive into, which is sometimes there."""

    def __init__(self, size: int, every: int = 1) -> None:
        self._memory = bytearray(size)
        self.every = every
        self._asked = 0
        self.counts: list[int] = []

    def room(self) -> memoryview | None:
        self._asked += 1
        return memoryview(self._memory) if self._asked % self.every == 0 else None

    def received(self, count: int) -> None:
        self.counts.append(count)


class Handler:
    """Counts what it gets of each body, and says how much and in which way."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.take: Callable[[Inflow, bytes | memoryview], None] = self.keep
        self.room: Memory | None = None
        self.begin = asyncio.Event()
        """Awaited before the body is."""
        self.begin.set()
        self.ends: list[str] = []

    def keep(self, _inflow: Inflow, data: bytes | memoryview) -> None:
        self.pieces.append(bytes(data))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            text = await self.read(request)
        except ClientDisconnect:
            self.ends.append("away")
            return
        except ValueError:
            self.ends.append("refused")
            text = "refused"
        await PlainTextResponse(text)(scope, receive, send)

    async def read(self, request: Request) -> str:
        inflow = inflow_of(request)
        if inflow is not None:
            await self.begin.wait()
        else:
            return f"asked {len(await request.body())}"
        before = sum(map(len, self.pieces))
        await inflow.into(lambda data: self.take(inflow, data), self.room)
        return f"given {sum(map(len, self.pieces)) - before}"


@asynccontextmanager
async def talking(app: Any) -> AsyncIterator[Talk]:
    async with connected(app) as talk, asyncio.timeout(20):
        yield talk


def limited(app: Any, stall_s: float = 0.3) -> Limits:
    return Limits(app, body_max_bytes=100, stall_s=stall_s)


def head(*lines: bytes, path: bytes = PATH) -> bytes:
    return b"\r\n".join((b"POST " + path + b" HTTP/1.1", b"host: x", *lines)) + b"\r\n\r\n"


def post(body: bytes, path: bytes = PATH) -> bytes:
    return head(b"content-length: %d" % len(body), path=path) + body


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    lines = await reader.readuntil(b"\r\n\r\n")
    length = int(lines.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    return int(lines.split()[1]), await reader.readexactly(length)


@pytest.mark.parametrize("size", [1, 1000, 3_000_000])
def test_a_body_is_given_whole_and_the_next_request_is_taken(size: int) -> None:
    body = bytes(range(256)) * (size // 256 + 1)

    async def talk() -> list[tuple[int, bytes]]:
        async with talking(handler) as (reader, writer):
            # Two in a row, and one that comes alone.
            writer.write(post(body) + post(body[:7]))
            answers = [await answer(reader), await answer(reader)]
            writer.write(post(body[:9]))
            return [*answers, await answer(reader)]

    handler = Handler()
    assert converse(talk()) == [
        (200, b"given %d" % len(body)),
        (200, b"given 7"),
        (200, b"given 9"),
    ]
    assert b"".join(handler.pieces) == body + body[:7] + body[:9]


@pytest.mark.parametrize("room", [Memory(1000), Memory(1 << 20), Memory(70_000, every=3)])
def test_a_body_is_received_where_it_is_wanted(room: Memory) -> None:
    body = bytes(range(256)) * 12_000

    async def talk() -> list[tuple[int, bytes]]:
        async with talking(handler) as (reader, writer):
            # The request that follows must not get into the memory.
            writer.write(post(body) + post(body[:40_000], path=b"/elsewhere"))
            return [await answer(reader), await answer(reader)]

    handler = Handler()
    handler.room = room
    assert converse(talk()) == [(200, b"given %d" % len(body)), (200, b"asked 40000")]
    assert b"".join(handler.pieces) == body
    # Much comes in other ways only where there often is no room.
    assert 0 < sum(room.counts) < len(body)
    assert room.every > 1 or sum(room.counts) > len(body) - 100_000


@pytest.mark.parametrize("size", [30_000, 150_000])
def test_what_was_sent_counts_although_the_client_hung_up_before_it_was_taken(size: int) -> None:
    async def talk() -> None:
        async with talking(handler) as (_reader, writer):
            writer.write(head(b"content-length: 900000") + bytes(size))
            await writer.drain()
            address = writer.get_extra_info("peername")
            writer.close()
            await writer.wait_closed()
            # Whoever would notice has done so when another request was served.
            other_reader, other_writer = await asyncio.open_connection(*address)
            other_writer.write(b"GET /elsewhere HTTP/1.1\r\nhost: x\r\n\r\n")
            assert await answer(other_reader) == (200, b"asked 0")
            other_writer.close()
            handler.begin.set()
            while not handler.ends:
                await asyncio.sleep(0.01)

    handler = Handler()
    handler.begin.clear()
    converse(talk())
    assert handler.ends == ["away"]
    assert sum(map(len, handler.pieces)) == size


def test_a_body_that_comes_byte_by_byte_is_given_whole() -> None:
    async def talk() -> tuple[int, bytes]:
        async with talking(handler) as (reader, writer):
            # The head has 0.3 s for itself, which so many steps may take on a busy machine.
            writer.write(head(b"content-length: 10"))
            for letter in b"0123456789":
                await asyncio.sleep(0.001)
                writer.write(bytes([letter]))
            return await answer(reader)

    handler = Handler()
    assert converse(talk()) == (200, b"given 10")
    assert b"".join(handler.pieces) == b"0123456789"


@pytest.mark.parametrize(
    "sent",
    [
        head(b"transfer-encoding: chunked") + b"3\r\nabc\r\n0\r\n\r\n",
        head(b"content-length: 3", b"expect: 100-continue") + b"abc",
        post(b"abc", path=b"/elsewhere"),
    ],
)
def test_other_bodies_are_asked_for_as_ever(sent: bytes) -> None:
    async def talk() -> bytes:
        async with talking(Handler()) as (reader, writer):
            writer.write(sent)
            return await reader.readuntil(b"asked 3")

    assert converse(talk()).count(b"HTTP/1.1 200") == 1


def test_what_is_left_of_a_refused_body_is_no_next_request() -> None:
    """Also when it looks like one."""

    def refuse(_inflow: Inflow, _data: bytes) -> None:
        raise ValueError

    async def talk() -> list[tuple[int, bytes]]:
        async with talking(handler) as (reader, writer):
            writer.write(head(b"content-length: 900000") + bytes(100_000))
            first = await answer(reader)
            handler.take = handler.keep
            rest = post(b"no request") * 20_000
            writer.write(rest[:800_000] + post(b"abc"))
            return [first, await answer(reader)]

    handler = Handler()
    handler.take = refuse
    assert converse(talk()) == [(200, b"refused"), (200, b"given 3")]


def test_what_is_left_of_a_refused_body_must_come_in_time() -> None:
    def refuse(_inflow: Inflow, _data: bytes) -> None:
        raise ValueError

    async def talk() -> bytes:
        async with talking(handler) as (reader, writer):
            writer.write(head(b"content-length: 900000") + bytes(100_000))
            await answer(reader)
            writer.write(b"x")
            return await reader.read()

    handler = Handler()
    handler.take = refuse
    # Closed: an answer was given already.
    assert converse(talk()) == b""


def test_a_body_that_stalls_is_given_up() -> None:
    async def talk() -> bytes:
        async with talking(limited(handler)) as (reader, writer):
            writer.write(head(b"content-length: 900000") + bytes(100_000))
            return await reader.readuntil(b"\r\n\r\n")

    handler = Handler()
    lines = converse(talk())
    assert lines.startswith(b"HTTP/1.1 408")
    assert b"connection: close" in lines.lower()
    assert handler.ends == ["away"]


def test_a_body_that_comes_slowly_is_no_stalled_one() -> None:
    async def talk() -> tuple[int, bytes]:
        async with talking(limited(Handler(), stall_s=1.0)) as (reader, writer):
            writer.write(head(b"content-length: 15"))
            for _ in range(15):
                writer.write(b"x")
                await asyncio.sleep(0.1)
            return await answer(reader)

    assert converse(talk()) == (200, b"given 15")


def test_a_client_that_goes_away_ends_it() -> None:
    async def talk() -> None:
        async with talking(handler) as (_reader, writer):
            writer.write(head(b"content-length: 900000") + bytes(100_000))
            while not handler.pieces:
                await asyncio.sleep(0.01)
            writer.transport.abort()
            while not handler.ends:
                await asyncio.sleep(0.01)

    handler = Handler()
    converse(talk())
    assert handler.ends == ["away"]


def test_a_pause_holds_the_sender_up_and_is_no_stall() -> None:
    size = 40_000_000

    async def talk() -> tuple[int, bytes]:
        async with talking(limited(handler, stall_s=0.5)) as (reader, writer):
            writer.write(head(b"content-length: %d" % size) + bytes(size))
            while not paused:
                await asyncio.sleep(0.01)
            await asyncio.sleep(1.5)
            got = len(handler.pieces)
            assert got < size // 256_000
            await asyncio.sleep(0.1)
            assert len(handler.pieces) == got
            paused[0].resume()
            return await answer(reader)

    def take_and_pause(inflow: Inflow, data: bytes) -> None:
        handler.pieces.append(data)
        if not paused:
            paused.append(inflow)
            inflow.pause()

    handler, paused = Handler(), list[Inflow]()
    handler.take = take_and_pause
    assert converse(talk()) == (200, b"given %d" % size)
