"""Clients that do not read their answers are cut, however little waits; those that do are not."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import struct
import termios
from contextlib import AsyncExitStack
from typing import Any

import pytest

from pacsteward.web.protocol import PatientProtocol
from pacsteward.web.reader_watch import Patience, ReaderWatch
from pacsteward.web.test_support import Hasty, Short, connected, converse, get
from pacsteward.web.unread import AHEAD_BYTES, MUCH_BYTES, UNREAD


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

    assert converse(talk()) < size


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
    converse(talk())
    assert UNREAD.size_bytes == before


def test_client_that_stops_reading_the_rest_of_a_last_answer_is_cut() -> None:
    size = 1 << 24  # more than the system takes for a client that reads nothing

    async def talk() -> None:
        made: list[Ending] = []
        resumed, lost = asyncio.Event(), asyncio.Event()

        class Ending(Hasty):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                super().connection_made(transport)
                held = transport.get_extra_info("socket")
                held.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
                limit = size * 3 // 2
                self.transport.set_write_buffer_limits(limit, limit - 1)
                made.append(self)

            def resume_writing(self) -> None:
                super().resume_writing()
                resumed.set()

            def connection_lost(self, exc: Exception | None) -> None:
                super().connection_lost(exc)
                lost.set()

        async def large(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": bytes(size), "more_body": True})
            # What is written in one turn of the loop is one to it: it tells nothing before all of
            # that is gone.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await send({"type": "http.response.body", "body": bytes(size)})

        async with connected(large, protocol=Ending) as (reader, writer), asyncio.timeout(60):
            writer.write(get("/", "connection: close"))
            reading: Any = reader._transport  # type: ignore[attr-defined]
            while not resumed.is_set():
                await reader.read(1 << 16)
            reading.pause_reading()
            assert made[0].transport.is_closing()
            assert made[0].transport.get_write_buffer_size()
            await lost.wait()

    converse(talk())


class ByHand(PatientProtocol):
    """Looks at its client when it is told to."""

    patience = Patience(stall_s=600.0, pressed_stall_s=600.0, look_s=600.0)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.begun = asyncio.Event()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.begun.set()

    def look(self) -> None:
        self._reader_watch.look()

    def look_after_all_patience(self) -> bool:
        """Say whether the client was cut who has had the time by now."""
        self._reader_watch._read_at -= 2 * self.patience.stall_s
        self.look()
        return self.transport.is_closing()


@pytest.mark.parametrize("end", ["client", "nonsense"])
def test_a_connection_that_closes_amid_an_answer_is_watched_by_one_watch(
    monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """A second one would go on behind the end, and count for ever what nobody keeps any more."""
    watches: list[asyncio.TimerHandle | None] = []
    made: list[ByHand] = []
    look_again = ReaderWatch._look_again

    def note(watch: ReaderWatch) -> None:
        look_again(watch)
        watches.append(watch._timer)

    monkeypatch.setattr(ReaderWatch, "_look_again", note)

    class Noting(ByHand):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            made.append(self)

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

        async with connected(large, protocol=Noting) as (reader, writer), asyncio.timeout(60):
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
            # Here: a loop that ends cancels every one.
            assert len(watches) == 2
            assert all(watch is not None and watch.cancelled() for watch in watches)

    converse(talk())


class Pressed(PatientProtocol):
    """Would wait for longer than the test does, if it were not pressed."""

    patience = Patience(stall_s=600.0, pressed_stall_s=0.1, look_s=0.02)


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
            connected(large, protocol=Pressed) as (_reader, first),
            connected(large, protocol=Pressed) as (_other, second),
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
    converse(talk())


def test_of_clients_that_stop_reading_together_only_those_are_cut_who_are_too_many() -> None:
    """A network that fails for a moment stops all viewers of a ward at once."""
    size, count = MUCH_BYTES // 3, 4
    made: list[ByHand] = []

    class Noting(ByHand):
        patience = Patience(stall_s=600.0, pressed_stall_s=60.0, look_s=600.0)

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            made.append(self)

    async def large(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(size)})

    async def talk() -> int:
        async with AsyncExitStack() as stack, asyncio.timeout(60):
            for number in range(count):
                talk = connected(large, protocol=Noting)
                reader, writer = await stack.enter_async_context(talk)
                stack.callback(writer.transport.abort)
                reader._transport.pause_reading()  # type: ignore[attr-defined]
                writer.write(get("/"))
                while len(made) <= number or not made[number].begun.is_set():
                    await asyncio.sleep(0.01)
            assert UNREAD.is_much
            for served in made:
                served._reader_watch._read_at -= 100.0
                served.look()
            return [served.transport.is_closing() for served in made].count(True)

    assert converse(talk()) == 1


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
                await served.begun.wait()
                waiting = served.transport.get_write_buffer_size()
                for _ in range(3):
                    queued = queued_bytes(served)
                    while queued_bytes(served) >= queued:
                        await loop.sock_recv(client, 1 << 12)
                    assert not served.look_after_all_patience()
                assert served.transport.get_write_buffer_size() == waiting
                while (queued := queued_bytes(served)) != queued_bytes(served):
                    await asyncio.sleep(0.01)
                served.look()
                assert served.look_after_all_patience()

    converse(talk())


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
            while not made or not made[0].begun.is_set():
                await asyncio.sleep(0.01)
            waiting = made[0].transport.get_write_buffer_size
            while UNREAD.size_bytes - before != waiting() + AHEAD_BYTES:
                await asyncio.sleep(0.01)
                made[0].look()
            writer.transport.abort()
            while UNREAD.size_bytes != before:
                await asyncio.sleep(0.01)

    converse(talk())


def queued_bytes(served: PatientProtocol) -> int:
    connection = served.transport.get_extra_info("socket")
    return struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))[0]


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

    assert converse(talk()) < size
