"""Conversations with the connection itself: slow heads, large heads, kept connections."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import struct
import termios
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn
import uvloop

from pacsteward.web.protocol import PatientProtocol
from pacsteward.web.unread import AHEAD_BYTES, MUCH_BYTES, UNREAD


class Hasty(PatientProtocol):
    head_timeout_s = 0.3
    write_stall_s = 0.3


async def hello(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
    await receive()
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
    )
    await send({"type": "http.response.body", "body": b"hi"})


class Short:
    """A short way for paths that begin so; answers with the path and so many bytes."""

    def __init__(self, size: int = 0) -> None:
        self.size = size

    def answer(
        self, scope: dict[str, Any], own_headers: object, memory: object
    ) -> list[bytes] | None:
        if not scope["path"].startswith("/short"):
            return None
        body = scope["path"].encode() + bytes(self.size)
        return [b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body), body]


@contextlib.asynccontextmanager
async def connected(
    app: Any = hello, short: Short | None = None, protocol: type[PatientProtocol] = Hasty
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    class Protocol(protocol):  # type: ignore[misc, valid-type]
        short_way = short  # type: ignore[assignment]

    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, http=Protocol, lifespan="off", log_config=None
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        server.should_exit = True
        await task


def test_connection_that_says_nothing_is_closed() -> None:
    async def talk() -> bytes:
        async with connected() as (reader, _writer), asyncio.timeout(60):
            return await reader.read()

    assert asyncio.run(talk()) == b""


def test_head_that_drips_is_closed_in_time() -> None:
    """R13: each byte must not start the clock anew."""

    async def talk() -> bytes:
        async with connected() as (reader, writer), asyncio.timeout(60):
            answer = asyncio.create_task(reader.read())
            for letter in b"GET / HTTP/1.1\r\nhost: x\r\nx-slow: " + b"a" * 40:
                if answer.done():
                    break
                with contextlib.suppress(ConnectionError):
                    writer.write(bytes([letter]))
                    await writer.drain()
                await asyncio.sleep(0.03)
            else:
                pytest.fail("Each byte gave it more time.")
            return await answer

    assert asyncio.run(talk()).startswith(b"HTTP/1.1 408 ")


def test_head_without_end_is_closed() -> None:
    async def talk() -> bytes:
        async with connected() as (reader, writer), asyncio.timeout(60):
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n")
            with contextlib.suppress(ConnectionError):
                for number in range(200):
                    writer.write(b"x-%d: " % number + b"a" * 4000 + b"\r\n")
                    await writer.drain()
            with contextlib.suppress(ConnectionError):
                return await reader.read()
            return b"closed"

    answer = asyncio.run(talk())
    assert answer.startswith(b"HTTP/1.1 431 ") or answer in (b"", b"closed")


def test_head_without_end_behind_a_request_that_is_not_answered_yet_is_cut() -> None:
    """Else whoever keeps an answer waiting, as by a wrong password, fills the memory meanwhile."""

    async def talk() -> bytes:
        made: list[Noting] = []
        cut = asyncio.Event()

        class Noting(Hasty):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                super().connection_made(transport)
                made.append(self)

            def connection_lost(self, exc: Exception | None) -> None:
                super().connection_lost(exc)
                cut.set()

        async def late(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
            await cut.wait()
            await hello(scope, receive, send)

        async with connected(late, protocol=Noting) as (reader, writer), asyncio.timeout(60):
            writer.write(get("/"))
            while not made or made[0].cycle is None:
                await asyncio.sleep(0.001)
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n")
            for number in range(30):
                writer.write(b"x-a: " + b"a" * 4000 + b"\r\n")
                # What is not taken before the end would have the system throw the answer away.
                while not cut.is_set() and len(made[0].headers) < number:
                    await asyncio.sleep(0.001)
                if cut.is_set():
                    return await reader.read()
            pytest.fail("It goes on and on.")

    assert asyncio.run(talk()) == b""  # else it would be taken for the answer to the first one


@pytest.mark.parametrize("pause_s", [0.0, 0.2])
def test_kept_connection_takes_the_next_request(pause_s: float) -> None:
    async def talk() -> list[bytes]:
        answers = []
        async with connected() as (reader, writer), asyncio.timeout(60):
            for _ in range(3):
                writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
                answers.append(await reader.readuntil(b"hi"))
                await asyncio.sleep(pause_s)
        return answers

    answers = asyncio.run(talk())
    assert [answer[:12] for answer in answers] == [b"HTTP/1.1 200"] * 3


def test_large_body_is_no_large_head() -> None:
    async def talk() -> bytes:
        async with connected() as (reader, writer), asyncio.timeout(60):
            body = b"x" * 3_000_000
            writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3000000\r\n\r\n" + body)
            return await reader.readuntil(b"hi")

    assert asyncio.run(talk()).startswith(b"HTTP/1.1 200")


def test_client_that_reads_nothing_is_cut_and_the_handler_goes_on() -> None:
    """R13: an answer that nobody takes must not be held for ever."""
    size = 64 * 1024**2
    ended = asyncio.Event()

    async def large(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        head = [(b"content-length", str(size).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": bytes(size), "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        ended.set()

    async def talk() -> int:
        received = 0
        async with connected(large) as (reader, writer), asyncio.timeout(60):
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            await ended.wait()
            with contextlib.suppress(ConnectionError):
                while piece := await reader.read(1 << 20):
                    received += len(piece)
        return received

    assert asyncio.run(talk()) < size


@pytest.mark.parametrize("end", ["answer", "silence", "client"])
def test_client_that_reads_all_but_the_last_of_an_answer_is_cut(end: str) -> None:
    """So little waits that nothing is paused for it, and the end would wait for it for ever."""

    async def talk() -> None:
        made: list[Ending] = []
        full, lost = asyncio.Event(), asyncio.Event()

        class Ending(Hasty):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                super().connection_made(transport)
                self.timeout_keep_alive = 0.1 if end == "silence" else 600  # type: ignore[assignment]
                made.append(self)

            def connection_lost(self, exc: Exception | None) -> None:
                super().connection_lost(exc)
                lost.set()

        async def until_full(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while not made[-1].transport.get_write_buffer_size():
                piece = {"type": "http.response.body", "body": bytes(1 << 12), "more_body": True}
                await send(piece)
                # What the system takes is gone by the second turn of the loop.
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            assert not made[-1].flow.write_paused
            await send({"type": "http.response.body", "body": b""})
            full.set()

        async with connected(until_full, protocol=Ending) as (reader, writer), asyncio.timeout(60):
            reader._transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(get("/", *(["connection: close"] if end == "answer" else [])))
            await full.wait()
            if end == "client":
                writer.write_eof()
            await lost.wait()

    before = UNREAD.size_bytes
    asyncio.run(talk())
    assert UNREAD.size_bytes == before


def test_client_that_stops_reading_the_rest_of_a_last_answer_is_cut() -> None:
    async def talk() -> None:
        made: list[Ending] = []
        resumed, lost = asyncio.Event(), asyncio.Event()

        class Ending(Hasty):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                super().connection_made(transport)
                held = transport.get_extra_info("socket")
                held.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
                self.transport.set_write_buffer_limits(1 << 22, (1 << 22) - 1)
                made.append(self)

            def resume_writing(self) -> None:
                super().resume_writing()
                resumed.set()

            def connection_lost(self, exc: Exception | None) -> None:
                super().connection_lost(exc)
                lost.set()

        async def large(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": bytes(1 << 23)})

        async with connected(large, protocol=Ending) as (reader, writer), asyncio.timeout(60):
            writer.write(get("/", "connection: close"))
            reading: Any = reader._transport  # type: ignore[attr-defined]
            while not resumed.is_set():
                await reader.read(1 << 16)
            reading.pause_reading()
            assert made[0].transport.is_closing()
            await lost.wait()

    asyncio.run(talk())


@pytest.mark.parametrize("end", ["client", "nonsense"])
def test_a_connection_that_closes_amid_an_answer_is_watched_by_one_watch(end: str) -> None:
    """A second one would go on behind the end, and count for ever what nobody keeps any more."""
    watches: list[asyncio.TimerHandle | None] = []
    made: list[Lasting] = []

    class Lasting(PatientProtocol):
        write_stall_s = 600.0

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            made.append(self)

        def _look_again(self) -> None:
            super()._look_again()
            watches.append(self._reader_watch)

    async def talk() -> None:
        full, closing, more, lost = (asyncio.Event() for _ in range(4))

        async def large(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
            served = made[-1]
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while not served.transport.get_write_buffer_size():
                piece = {"type": "http.response.body", "body": bytes(1 << 12), "more_body": True}
                await send(piece)
                # What the system takes is gone by the second turn of the loop.
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            assert not served.flow.write_paused
            full.set()
            await closing.wait()
            await send({"type": "http.response.body", "body": bytes(1 << 20), "more_body": True})
            assert served.flow.write_paused
            more.set()
            await send({"type": "http.response.body", "body": b"", "more_body": True})
            lost.set()

        async with connected(large, protocol=Lasting) as (reader, writer), asyncio.timeout(60):
            reader._transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(get("/"))
            await full.wait()
            if end == "client":
                writer.write_eof()
            else:
                writer.write(b"nonsense\r\n\r\n")
            while not made[-1].transport.is_closing():
                await asyncio.sleep(0.001)
            closing.set()
            await more.wait()
            writer.transport.abort()
            await lost.wait()

    asyncio.run(talk())
    assert len(watches) == 2
    assert all(watch is not None and watch.cancelled() for watch in watches)


def test_a_head_that_is_held_back_when_the_connection_is_lost_is_no_fault() -> None:
    """The loop that the product runs on calls it one to write on a connection that is gone."""
    faults: list[object] = []
    made: list[Noting] = []

    class Noting(Hasty):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            made.append(self)

    async def talk() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
        held = asyncio.Event()

        async def lose(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
            made[-1].transport.abort()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            # The end of the connection comes first, and behind it the turn of the head.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            held.set()

        async with connected(lose, protocol=Noting) as (_reader, writer), asyncio.timeout(60):
            writer.write(get("/"))
            await held.wait()

    uvloop.run(talk())
    assert faults == []


class Patient(PatientProtocol):
    """Would wait for longer than the test does."""

    write_stall_s = 600.0
    pressed_stall_s = 0.1

    def _look_again(self) -> None:
        self._reader_watch = self.loop.call_later(0.02, self._look_at_reader)


def test_clients_that_read_nothing_are_cut_sooner_while_very_much_waits_for_them() -> None:
    """Else answers that somebody asks for over and over and never reads fill the memory."""
    size = 48 * 1024**2
    cut: list[str] = []

    async def large(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        head = [(b"content-length", str(size).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": bytes(size), "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        cut.append(scope["path"])

    async def talk() -> None:
        before = UNREAD.size_bytes
        async with (
            connected(large, protocol=Patient) as (_reader, first),
            connected(large, protocol=Patient) as (_other, second),
            asyncio.timeout(60),
        ):
            first.write(get("/first"))
            while UNREAD.size_bytes == before:
                await asyncio.sleep(0.02)
            # One alone is waited for.
            await asyncio.sleep(0.3)
            assert cut == []
            second.write(get("/second"))
            while not cut:
                await asyncio.sleep(0.02)
            first.transport.abort()
            second.transport.abort()
            while UNREAD.size_bytes != before:
                await asyncio.sleep(0.02)

    assert 2 * size > MUCH_BYTES
    asyncio.run(talk())


class ByHand(PatientProtocol):
    """Looks at its client when it is told to."""

    write_stall_s = pressed_stall_s = 600.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.looked = asyncio.Event()

    def _look_again(self) -> None:
        self.looked.set()

    def look_after_all_patience(self) -> bool:
        """Say whether the client was cut who has had the time by now."""
        self._read_at -= 2 * self.write_stall_s
        self._look_at_reader()
        return self.transport.is_closing()


def test_a_client_is_not_cut_who_reads_slowly_what_the_system_holds_already() -> None:
    """The system takes megabytes from us at a time, and nothing while somebody reads those."""
    size = 32 * 1024**2
    made: list[ByHand] = []

    class Noting(ByHand):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            # Else the system may take more from us on its own.
            held = transport.get_extra_info("socket")
            held.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            made.append(self)

    async def large(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        head = [(b"content-length", str(size).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": bytes(size)})

    async def talk() -> None:
        loop = asyncio.get_running_loop()
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            client.setblocking(False)
            async with connected(large, protocol=Noting) as (_reader, writer), asyncio.timeout(60):
                await loop.sock_connect(client, writer.get_extra_info("peername"))
                await loop.sock_sendall(client, get("/"))
                while len(made) < 2:
                    await asyncio.sleep(0.01)
                served = made[1]
                await served.looked.wait()
                waiting = served.transport.get_write_buffer_size()
                for _ in range(3):
                    queued = queued_bytes(served)
                    while queued_bytes(served) >= queued:
                        await loop.sock_recv(client, 1 << 12)
                    assert not served.look_after_all_patience()
                assert served.transport.get_write_buffer_size() == waiting
                while (queued := queued_bytes(served)) != queued_bytes(served):
                    await asyncio.sleep(0.01)
                served._look_at_reader()
                assert served.look_after_all_patience()

    asyncio.run(talk())


def test_what_is_read_ahead_for_a_client_that_takes_nothing_counts_as_well() -> None:
    """Hundreds who ask for studies and read nothing hold more of those than waits on the way."""
    made: list[ByHand] = []

    class Noting(ByHand):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            made.append(self)

    async def stream(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not made[0].transport.is_closing():
            await send({"type": "http.response.body", "body": bytes(1 << 20), "more_body": True})

    async def talk() -> None:
        before = UNREAD.size_bytes
        async with connected(stream, protocol=Noting) as (reader, writer), asyncio.timeout(60):
            reader._transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(get("/"))
            while not made or not made[0].looked.is_set():
                await asyncio.sleep(0.01)
            waiting = made[0].transport.get_write_buffer_size
            while UNREAD.size_bytes - before != waiting() + AHEAD_BYTES:
                await asyncio.sleep(0.01)
                made[0]._look_at_reader()
            writer.transport.abort()
            while UNREAD.size_bytes != before:
                await asyncio.sleep(0.01)

    asyncio.run(talk())


def queued_bytes(served: PatientProtocol) -> int:
    connection = served.transport.get_extra_info("socket")
    return struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))[0]


def test_requests_in_a_row_of_a_client_that_left_are_answered_to_nobody() -> None:
    async def talk() -> list[str]:
        began, left, lost, heard = asyncio.Event(), asyncio.Event(), asyncio.Event(), []

        class Noticing(Hasty):
            def connection_lost(self, exc: Exception | None) -> None:
                super().connection_lost(exc)
                lost.set()

        async def late(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
            if began.is_set():
                await lost.wait()
                heard.append((await receive())["type"])
            else:
                # That it left is seen when this one is answered: nothing more is read meanwhile.
                began.set()
                await left.wait()
            await hello(scope, receive, send)

        async with (
            connected(late, protocol=Noticing) as (_reader, writer),
            asyncio.timeout(60),
        ):
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n" * 50)
            await began.wait()
            writer.transport.abort()
            left.set()
            while not heard:
                await asyncio.sleep(0.01)
        return heard

    assert asyncio.run(talk()) == ["http.disconnect"]


async def refuse(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
    """Answer before the body has come, as a door does that finds it too large."""
    await send(
        {"type": "http.response.start", "status": 413, "headers": [(b"content-length", b"2")]}
    )
    await send({"type": "http.response.body", "body": b"no"})


def test_what_is_left_of_a_refused_body_is_no_head() -> None:
    body = bytes(3 << 20)

    async def talk() -> list[bytes]:
        answers = []
        async with connected(refuse) as (reader, writer), asyncio.timeout(10):
            for _ in range(2):
                head = f"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
                writer.write(head.encode())
                await asyncio.sleep(0.05)
                writer.write(body)
                await writer.drain()
                answers.append(await reader.readuntil(b"no"))
        return answers

    assert [answer[:12] for answer in asyncio.run(talk())] == [b"HTTP/1.1 413"] * 2


def test_what_is_left_of_a_refused_body_must_come_in_time() -> None:
    async def talk() -> bytes:
        async with connected(refuse) as (reader, writer), asyncio.timeout(10):
            writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n")
            await reader.readuntil(b"no")
            with contextlib.suppress(ConnectionError):
                for _ in range(40):
                    writer.write(b"x")
                    await writer.drain()
                    await asyncio.sleep(0.03)
            with contextlib.suppress(ConnectionError):
                return await reader.read()
            return b""

    assert b"HTTP/1.1 2" not in asyncio.run(talk())


# --- the short way --------------------------------------------------------------------------------


def get(path: str, *headers: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "host: x", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def test_answers_of_both_ways_come_in_the_order_of_their_requests() -> None:
    paths = ["/short/1", "/long", "/short/2", "/short/3", "/long"]

    async def late(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        await asyncio.sleep(0.05)
        body = scope["path"].encode()
        head = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": body})

    async def talk() -> list[str]:
        came = []
        async with connected(late, Short()) as (reader, writer), asyncio.timeout(60):
            for _ in range(3):  # in a row, and then the connection is as good as new
                writer.write(b"".join(map(get, paths)))
                for _path in paths:
                    head = await reader.readuntil(b"\r\n\r\n")
                    size = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
                    came.append((await reader.readexactly(size)).decode())
        return came

    assert asyncio.run(talk()) == paths * 3


def test_a_head_that_stops_after_a_short_answer_is_closed_in_time() -> None:
    async def talk() -> bytes:
        async with connected(short=Short()) as (reader, writer), asyncio.timeout(60):
            writer.write(get("/short"))
            await reader.readuntil(b"/short")
            await asyncio.sleep(0.05)
            writer.write(get("/short")[:-10])
            return await reader.read()

    assert asyncio.run(talk()) == b""


def test_empty_lines_alone_keep_no_connection() -> None:
    async def talk() -> bytes:
        async with connected(short=Short()) as (reader, writer), asyncio.timeout(60):
            writer.write(get("/short"))
            await reader.readuntil(b"/short")
            await asyncio.sleep(0.05)
            writer.write(b"\r\n")
            return await reader.read()

    assert asyncio.run(talk()) == b""


def test_client_that_reads_nothing_of_a_short_answer_is_cut() -> None:
    size = 64 * 1024**2

    async def talk() -> int:
        received, before = 0, UNREAD.size_bytes
        async with connected(short=Short(size)) as (reader, writer), asyncio.timeout(60):
            writer.write(get("/short"))
            while UNREAD.size_bytes == before:
                await asyncio.sleep(0.02)
            while UNREAD.size_bytes != before:
                await asyncio.sleep(0.02)
            with contextlib.suppress(ConnectionError):
                while piece := await reader.read(1 << 20):
                    received += len(piece)
        return received

    assert asyncio.run(talk()) < size


@pytest.mark.parametrize(
    "request_bytes",
    [
        get("/short", "connection: close"),
        get("/short").replace(b"GET", b"HEAD"),
        get("/short").replace(b"1.1", b"1.0"),
        get("/%73hort"),
    ],
)
def test_what_is_no_plain_get_goes_to_the_application(request_bytes: bytes) -> None:
    asked = []

    async def note(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        asked.append(scope["path"])
        await hello(scope, receive, send)

    async def talk() -> bytes:
        async with connected(note, Short()) as (reader, writer), asyncio.timeout(60):
            writer.write(request_bytes)
            return await reader.readuntil(b"\r\n\r\n")

    asyncio.run(talk())
    assert asked == ["/short"]


def test_the_head_of_an_answer_goes_out_with_its_body() -> None:
    sent: list[bytes] = []

    class Noting(Hasty):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            told = self._answers._transport
            self._answers._transport = Told(told, sent)  # type: ignore[assignment]

    class Told:
        def __init__(self, transport: asyncio.Transport, sent: list[bytes]) -> None:
            self._transport = transport
            self._sent = sent

        def write(self, data: bytes) -> None:
            self._sent.append(data)
            self._transport.write(data)

        def writelines(self, pieces: tuple[bytes, ...]) -> None:
            self.write(b"".join(pieces))

    async def talk() -> None:
        async with connected(protocol=Noting) as (reader, writer), asyncio.timeout(20):
            for _ in range(2):
                writer.write(get("/"))
                await reader.readuntil(b"hi")

    asyncio.run(talk())
    assert [(one[:15], one[-2:]) for one in sent] == [(b"HTTP/1.1 200 OK", b"hi")] * 2


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_head_of_an_answer_does_not_wait_for_a_body_that_comes_later(method: str) -> None:
    go_on = asyncio.Event()

    async def slow(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await go_on.wait()
        await send({"type": "http.response.body", "body": b"hi"})

    async def talk() -> bytes:
        async with connected(slow) as (reader, writer), asyncio.timeout(20):
            writer.write(get("/").replace(b"GET", method.encode()))
            head = await reader.readuntil(b"\r\n\r\n")
            go_on.set()
            return head if method == "HEAD" else head + await reader.readexactly(2)

    assert asyncio.run(talk()).startswith(b"HTTP/1.1 200 OK")
