"""Bodies whose end is not certain are refused, and those whose end is certain are read."""

from __future__ import annotations

import asyncio

import pytest

from pacsteward.web.test_protocol import connected, get


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


async def everything_answered_to(*pieces: bytes) -> bytes:
    """Return all that comes until the server closes the connection."""
    async with connected(repeat) as (reader, writer), asyncio.timeout(60):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.02)
        return await reader.read()


@pytest.mark.parametrize("path", ["/here", "/dicom-web/studies"])
@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["transfer-encoding: gzip, chunked"], b"501"),
        (["transfer-encoding: gzip", "transfer-encoding: chunked"], b"501"),
        (["transfer-encoding: Identity, Chunked"], b"501"),
        (["transfer-encoding: gzip"], b"400"),
        (["transfer-encoding: identity"], b"400"),
        (["transfer-encoding: chunked, gzip"], b"400"),
        (["transfer-encoding: chunked, chunked"], b"400"),
        (["transfer-encoding: , chunked"], b"400"),
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
    answer = asyncio.run(everything_answered_to(request))
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"hello" not in answer


def test_http_1_0_knows_no_chunks() -> None:
    request = post("/", "transfer-encoding: chunked", body=CHUNKS).replace(b"/1.1", b"/1.0")
    assert asyncio.run(everything_answered_to(request)).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("coding", ["chunked", "Chunked"])
def test_chunks_are_taken(coding: str) -> None:
    request = post("/", f"transfer-encoding: {coding}", "connection: close", body=CHUNKS)
    assert asyncio.run(everything_answered_to(request)).endswith(b"/ hello")


def test_a_chunk_that_cannot_be_read_is_answered() -> None:
    request = post("/", "transfer-encoding: chunked")
    answer = asyncio.run(everything_answered_to(request, b"5\r\nhello\r\n", b"no number\r\n"))
    assert answer.startswith(b"HTTP/1.1 400")


def test_what_cannot_be_read_is_answered_to_nobody_who_waits_for_something_else() -> None:
    """Its answer would be taken for that of the request before, or for a part of that."""
    request = post("/first", "content-length: 5", body=b"hello")
    answer = asyncio.run(everything_answered_to(request + b"nonsense\r\n\r\n"))
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
    answer = asyncio.run(everything_answered_to(*pieces))
    bodies = [part.split(b"\r\n\r\n")[1] for part in answer.split(b"HTTP/1.1 200")[1:]]
    assert bodies == [b"/first hello", b"/again hello", b"/last "]


def test_a_body_behind_an_offer_is_not_read_as_a_request() -> None:
    inner = get("/smuggled")
    request = post("/", "connection: upgrade", "upgrade: x", f"content-length: {len(inner)}")
    answer = asyncio.run(everything_answered_to(request, inner, get("/last", "connection: close")))
    assert answer.count(b"HTTP/1.1 200") == 2
    assert b"\r\n\r\n/ " + inner in answer


def test_very_many_offers_in_a_row_are_answered_one_after_the_other() -> None:
    """In one piece: it must not be taken apart by functions that call themselves."""
    offer = ("connection: upgrade", "upgrade: x")
    count = 2_000
    answer = asyncio.run(
        everything_answered_to(
            post("/first", "content-length: 3", body=b"a"),
            b"bc" + get("/", *offer) * count + get("/last", "connection: close"),
        )
    )
    assert answer.count(b"HTTP/1.1 200") == count + 2
    assert answer.endswith(b"/last ")
