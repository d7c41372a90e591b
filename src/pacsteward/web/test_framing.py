"""Bodies whose end is not certain are refused, and those whose end is certain are read."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from starlette.types import ASGIApp

from pacsteward.web.origin import Origin
from pacsteward.web.protocol import PatientProtocol
from pacsteward.web.test_support import LOST, Hasty, connected, converse, get


async def repeat(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
    """Answer with the path and the body."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body, more = body + message["body"], message["more_body"]
    body = scope["path"].encode() + b" " + body
    head = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": body})


def post(path: str, *headers: str, body: bytes = b"") -> bytes:
    return get(path, *headers).replace(b"GET", b"POST", 1) + body


CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"
OFFERS_HTTP_2 = ("connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAEAAEAA")


async def everything_answered_to(
    *pieces: bytes, app: ASGIApp = repeat, pause_s: float = 0.02
) -> bytes:
    """Return all that comes until the server closes the connection."""
    answer = b""
    async with connected(app) as (reader, writer), asyncio.timeout(60):
        with contextlib.suppress(*LOST):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(pause_s)
        with contextlib.suppress(ConnectionError):
            while came := await reader.read(1 << 16):
                answer += came
    return answer


@pytest.mark.parametrize("path", ["/here", "/dicom-web/studies"])
@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["transfer-encoding: gzip, chunked"], b"501"),
        (["transfer-encoding: gzip, chunked "], b"501"),
        (["transfer-encoding: gzip", "transfer-encoding: chunked"], b"501"),
        (["transfer-encoding: Identity, Chunked"], b"501"),
        (["transfer-encoding: gzip"], b"400"),
        (["transfer-encoding: identity"], b"400"),
        (["transfer-encoding: chunked, gzip"], b"400"),
        (["transfer-encoding: chunked, chunked"], b"400"),
        (["transfer-encoding: , chunked"], b"400"),
        (["transfer-encoding: chunked\t"], b"400"),  # the parser does not take it for a blank
        (["transfer-encoding: xchunked"], b"400"),
        (["transfer-encoding: chunked;q=1"], b"400"),
        (["transfer-encoding: chunked", "content-length: 15"], b"400"),
        (["content-length: 15", "transfer-encoding: chunked"], b"400"),
        (["content-length: 15", "content-length: 15"], b"400"),
        (["content-length: +15"], b"400"),
    ],
)
@pytest.mark.parametrize("offer", [(), OFFERS_HTTP_2])
def test_a_body_whose_end_is_not_certain_is_refused_and_ends_the_connection(
    path: str, lines: list[str], status: bytes, offer: tuple[str, ...]
) -> None:
    request = post(path, *lines, *offer, body=CHUNKS) + get("/next")
    answer = converse(everything_answered_to(request))
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"hello" not in answer


def test_http_1_0_knows_no_chunks() -> None:
    request = post("/", "transfer-encoding: chunked", body=CHUNKS).replace(b"/1.1", b"/1.0")
    assert converse(everything_answered_to(request)).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("coding", ["chunked", "Chunked", "chunked ", "\tchunked  "])
def test_chunks_are_taken(coding: str) -> None:
    request = post("/", f"transfer-encoding: {coding}", "connection: close", body=CHUNKS)
    assert converse(everything_answered_to(request)).endswith(b"/ hello")


def test_a_chunk_that_cannot_be_read_is_answered() -> None:
    request = post("/", "transfer-encoding: chunked")
    answer = converse(everything_answered_to(request, b"5\r\nhello\r\n", b"no number\r\n"))
    assert answer.startswith(b"HTTP/1.1 400")


def test_what_cannot_be_read_is_answered_to_nobody_who_waits_for_something_else() -> None:
    """Its answer would be taken for that of the request before, or for a part of that."""
    request = post("/first", "content-length: 5", body=b"hello")
    answer = converse(everything_answered_to(request + b"nonsense\r\n\r\n"))
    assert b" 400 " not in answer


@pytest.mark.parametrize("body_lines", [["content-length: 5"], ["transfer-encoding: chunked"]])
@pytest.mark.parametrize("cut", [0, 1, 3, None])
def test_a_request_that_offers_another_protocol_keeps_its_body(
    body_lines: list[str], cut: int | None
) -> None:
    """Java's own client offers HTTP/2 with every request. RFC 9110 7.8: we may stay with 1.1."""
    body = CHUNKS if "chunked" in body_lines[0] else b"hello"
    first = post("/first", *OFFERS_HTTP_2, *body_lines)
    rest = body + post("/again", *OFFERS_HTTP_2, *body_lines, body=body)
    rest += get("/last", *OFFERS_HTTP_2, "connection: Upgrade, close")
    pieces = [first + rest] if cut is None else [first + rest[:cut], rest[cut:]]
    answer = converse(everything_answered_to(*pieces))
    bodies = [part.split(b"\r\n\r\n")[1] for part in answer.split(b"HTTP/1.1 200")[1:]]
    assert bodies == [b"/first hello", b"/again hello", b"/last "]


def test_a_body_behind_an_offer_is_not_read_as_a_request() -> None:
    inner = get("/smuggled")
    request = post("/", "connection: upgrade", "upgrade: x", f"content-length: {len(inner)}")
    answer = converse(everything_answered_to(request, inner, get("/last", "connection: close")))
    assert answer.count(b"HTTP/1.1 200") == 2
    assert b"\r\n\r\n/ " + inner in answer


def test_very_many_offers_in_a_row_are_answered_one_after_the_other() -> None:
    """In one piece: it must not be taken apart by functions that call themselves."""
    offer = ("connection: upgrade", "upgrade: x")
    count = 2_000
    answer = converse(
        everything_answered_to(
            post("/first", "content-length: 3", body=b"a"),
            b"bc" + get("/", *offer) * count + get("/last", "connection: close"),
        )
    )
    assert answer.count(b"HTTP/1.1 200") == count + 2
    assert answer.endswith(b"/last ")


@pytest.mark.parametrize(
    "behind", [get("/next"), b"nonsense\r\n\r\n", get("/next") + b"nonsense\r\n\r\n", b"\r\n"]
)
@pytest.mark.parametrize("offer", [(), OFFERS_HTTP_2])
def test_what_comes_behind_a_last_request_is_dropped(offer: tuple[str, ...], behind: bytes) -> None:
    """It must not run, and the last request is answered whatever it is."""
    asked: list[str] = []

    async def note(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        asked.append(scope["path"])
        await repeat(scope, receive, send)

    connection = ", ".join(["connection: close", *(["upgrade"] if offer else [])])
    sent = post("/last", *offer[1:], connection, "content-length: 5", body=b"hello" + behind)
    answer = converse(everything_answered_to(sent, behind, app=note))
    assert answer.count(b"HTTP/1.1 200") == answer.count(b"HTTP/1.1 ") == 1
    assert answer.endswith(b"/last hello")
    assert asked == ["/last"]


def test_much_that_comes_behind_a_last_request_does_not_cost_its_answer() -> None:
    junk = bytes(1_000_000)
    came = 0
    all_came = asyncio.Event()

    class Noting(Hasty):
        def data_received(self, data: bytes) -> None:
            nonlocal came
            super().data_received(data)
            came += len(data)
            if came > len(junk):
                all_came.set()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            all_came.set()

    async def late(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        await all_came.wait()
        await repeat(scope, receive, send)

    async def talk() -> bytes:
        async with connected(late, protocol=Noting) as (reader, writer), asyncio.timeout(60):
            writer.write(get("/last", "connection: close") + junk)
            return await reader.read()

    assert converse(talk()).endswith(b"/last ")


# --- lines behind the body ------------------------------------------------------------------------

TRAILERS = (
    b"X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Host: evil.example\r\n"
    b"Cookie: session=stolen\r\nX-Empty:\r\nConnection: close\r\n"
)


async def tell_headers(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
    """Answer with the body, who asked, and all that stands in the head when the body is whole."""
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message["body"]
        if not message["more_body"]:
            break
    lines = [b"%b=%b" % line for line in scope["headers"]]
    body = b" ".join([scope["path"].encode(), body, scope["client"][0].encode(), *lines])
    head = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": body})


def chunked(path: str, *headers: str, trailers: bytes = b"") -> bytes:
    body = b"5\r\nhello\r\n0\r\n" + trailers + b"\r\n"
    return post(path, *headers, "transfer-encoding: chunked", body=body)


@pytest.mark.parametrize("offer", [(), OFFERS_HTTP_2])
@pytest.mark.parametrize("step", [None, 1, 7])
def test_what_stands_behind_a_body_is_believed_nowhere(
    offer: tuple[str, ...], step: int | None
) -> None:
    """Also of the next request on the connection, which a proxy may send for somebody else."""
    forwarded = "x-forwarded-for: 203.0.113.9"
    sent = chunked("/first", *offer, forwarded, trailers=TRAILERS)
    sent += chunked("/next", *offer, forwarded, trailers=TRAILERS)
    sent += get("/last", forwarded, "connection: close")
    pieces = [sent] if step is None else [sent[at : at + step] for at in range(0, len(sent), step)]
    app = Origin(tell_headers, trusted_proxies=("127.0.0.1",))
    answer = converse(everything_answered_to(*pieces, app=app, pause_s=0))
    bodies = [part.split(b"\r\n\r\n")[1] for part in answer.split(b"HTTP/1.1 200")[1:]]
    assert [body.split()[0] for body in bodies] == [b"/first", b"/next", b"/last"]
    for body in bodies:
        assert b" 203.0.113.9 " in body
        for word in (b"6.6.6.6", b"evil", b"cookie", b"x-empty"):
            assert word not in body
    assert [b" hello " in body for body in bodies] == [True, True, False]


@pytest.mark.parametrize("offer", [(), OFFERS_HTTP_2])
@pytest.mark.parametrize("step", [None, 4096])
@pytest.mark.parametrize(
    "trailers", [b"a: b\r\n" * 40_000, b"a: " + b"b" * 200_000 + b"\r\n", b"a: " + b"b" * 200_000]
)
def test_more_than_a_head_may_have_is_not_taken_behind_a_body_either(
    trailers: bytes, step: int | None, offer: tuple[str, ...]
) -> None:
    sent = chunked("/", *offer, trailers=trailers)
    if not trailers.endswith(b"\r\n"):
        sent = sent.removesuffix(b"\r\n")
    step = step or len(sent)
    pieces = [sent[at : at + step] for at in range(0, len(sent), step)]
    answer = converse(everything_answered_to(*pieces, pause_s=0))
    assert answer.startswith(b"HTTP/1.1 400") or not answer  # that is lost when more was on its way
    assert b"hello" not in answer


def test_more_than_a_head_may_have_is_not_taken_in_one_piece_with_the_head_either() -> None:
    made: list[PatientProtocol] = []

    class Noting(PatientProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            made.append(self)

    async def talk(sent: bytes) -> bytes:
        async with connected(repeat, protocol=Noting) as (reader, _writer), asyncio.timeout(60):
            while not made:
                await asyncio.sleep(0.01)
            # By hand: the system might cut it.
            made[0].data_received(sent)
            return await reader.read()

    answer = converse(talk(chunked("/", trailers=(b"a: " + b"b" * 1_000 + b"\r\n") * 68)))
    assert answer.startswith(b"HTTP/1.1 400")


def test_what_stands_beside_many_chunks_is_no_large_head() -> None:
    piece = b"1;note=" + b"n" * 2_000 + b"\r\n"
    pieces = [piece, b"a\r\n"] * 100
    request = post("/", "transfer-encoding: chunked", "connection: close")
    answer = converse(everything_answered_to(request, *pieces, b"0\r\n\r\n", pause_s=0))
    assert answer.endswith(b"/ " + b"a" * 100)
