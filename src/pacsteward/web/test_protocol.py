"""Conversations with the connection itself: slow heads, large heads, kept connections."""

from __future__ import annotations

import asyncio
import contextlib
import os

import pytest

from pacsteward.web.test_support import LOST, Hasty, Short, connected, converse, get, hello


def test_connection_that_says_nothing_is_closed() -> None:
    async def talk() -> bytes:
        async with connected() as (reader, _writer), asyncio.timeout(60):
            return await reader.read()

    assert converse(talk()) == b""


def test_head_that_drips_is_closed_in_time() -> None:
    """R13: each byte must not start the clock anew."""

    async def talk() -> bytes:
        async with connected() as (reader, writer), asyncio.timeout(60):
            answer = asyncio.create_task(reader.read())
            for letter in b"GET / HTTP/1.1\r\nhost: x\r\nx-slow: " + b"a" * 40:
                if answer.done():
                    break
                with contextlib.suppress(*LOST):
                    writer.write(bytes([letter]))
                    await writer.drain()
                await asyncio.sleep(0.03)
            else:
                pytest.fail("Each byte gave it more time.")
            return await answer

    assert converse(talk()).startswith(b"HTTP/1.1 408 ")


def test_head_without_end_is_closed() -> None:
    async def talk() -> bytes:
        async with connected() as (reader, writer), asyncio.timeout(60):
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n")
            with contextlib.suppress(*LOST):
                for number in range(200):
                    writer.write(b"x-%d: " % number + b"a" * 4000 + b"\r\n")
                    await writer.drain()
            with contextlib.suppress(ConnectionError):
                return await reader.read()
            return b"closed"

    answer = converse(talk())
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

    assert converse(talk()) == b""  # else it would be taken for the answer to the first one


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

    answers = converse(talk())
    assert [answer[:12] for answer in answers] == [b"HTTP/1.1 200"] * 3


def test_a_request_that_has_come_when_its_connection_was_to_be_closed_is_answered() -> None:
    """The loop was busy with others, and looks at its clocks before it receives again."""

    async def talk() -> bytes:
        made: list[Noting] = []

        class Noting(Hasty):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                super().connection_made(transport)
                made.append(self)

        async with connected(protocol=Noting) as (reader, writer), asyncio.timeout(60):
            writer.write(get("/"))
            await reader.readuntil(b"hi")
            os.write(writer.get_extra_info("socket").fileno(), get("/"))
            made[0].timeout_keep_alive_handler()
            answer = await reader.readuntil(b"hi")
            made[0].timeout_keep_alive_handler()
            assert await reader.read() == b""
            return answer

    assert converse(talk()).startswith(b"HTTP/1.1 200")


def test_large_body_is_no_large_head() -> None:
    async def talk() -> bytes:
        async with connected() as (reader, writer), asyncio.timeout(60):
            body = b"x" * 3_000_000
            writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3000000\r\n\r\n" + body)
            return await reader.readuntil(b"hi")

    assert converse(talk()).startswith(b"HTTP/1.1 200")


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

    converse(talk())
    assert faults == []


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

    assert converse(talk()) == ["http.disconnect"]


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

    assert [answer[:12] for answer in converse(talk())] == [b"HTTP/1.1 413"] * 2


def test_what_is_left_of_a_refused_body_must_come_in_time() -> None:
    async def talk() -> bytes:
        async with connected(refuse) as (reader, writer), asyncio.timeout(10):
            writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n")
            await reader.readuntil(b"no")
            with contextlib.suppress(*LOST):
                for _ in range(40):
                    writer.write(b"x")
                    await writer.drain()
                    await asyncio.sleep(0.03)
            with contextlib.suppress(ConnectionError):
                return await reader.read()
            return b""

    assert b"HTTP/1.1 2" not in converse(talk())


# --- the short way --------------------------------------------------------------------------------


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

    assert converse(talk()) == paths * 3


def test_a_head_that_stops_after_a_short_answer_is_closed_in_time() -> None:
    async def talk() -> bytes:
        async with connected(short=Short()) as (reader, writer), asyncio.timeout(60):
            writer.write(get("/short"))
            await reader.readuntil(b"/short")
            await asyncio.sleep(0.05)
            writer.write(get("/short")[:-10])
            return await reader.read()

    assert converse(talk()) == b""


def test_empty_lines_alone_keep_no_connection() -> None:
    async def talk() -> bytes:
        async with connected(short=Short()) as (reader, writer), asyncio.timeout(60):
            writer.write(get("/short"))
            await reader.readuntil(b"/short")
            await asyncio.sleep(0.05)
            writer.write(b"\r\n")
            return await reader.read()

    assert converse(talk()) == b""


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

    converse(talk())
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

    converse(talk())
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

    assert converse(talk()).startswith(b"HTTP/1.1 200 OK")
