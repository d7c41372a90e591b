"""Answers on the wire: streamed, conditional, in ranges."""

from __future__ import annotations

import asyncio
import gzip
import threading
from collections.abc import Iterator

import pytest
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

from pacsteward.base.errors import Broken, WouldWait
from pacsteward.dicom.web.answers import (
    Request,
    Response,
    accept_of,
    answer_range,
    array_answer,
    byte_range,
    gzipped,
    is_unchanged,
    list_answer,
    list_form,
    not_modified,
    warning,
)
from pacsteward.dicom.web.streaming import PartsAnswer, StreamedAnswer


def client(handler: object) -> TestClient:
    return TestClient(Starlette(routes=[Route("/", handler, methods=["GET"])]))  # type: ignore[arg-type]


def test_c59_the_accept_parameter_overrides_the_header() -> None:
    def handler(request: Request) -> Response:
        return Response(accept_of(request))

    asking = client(handler)
    header = {"accept": "application/json"}
    assert asking.get("/", headers=header).text == "application/json"
    both = asking.get("/?accept=image/png&accept=image/jpeg", headers=header)
    assert both.text == "image/png,image/jpeg"


def test_pieces_arrive_in_order_with_their_length() -> None:
    pieces = [bytes([n]) * 300_000 for n in range(10)]

    def handler(_request: Request) -> Response:
        return StreamedAnswer(iter(pieces), media_type="a/b", size_bytes=3_000_000)

    answer = client(handler).get("/")
    assert answer.headers["content-length"] == "3000000"
    assert answer.content == b"".join(pieces)


def test_what_was_open_is_closed_when_the_client_leaves() -> None:
    closed = threading.Event()

    def pieces() -> Iterator[bytes]:
        try:
            while True:
                yield b"x" * (1 << 20)
        finally:
            closed.set()

    async def story() -> int:
        sent = 0
        leave = asyncio.Event()

        async def receive() -> dict[str, str]:
            await leave.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, object]) -> None:
            nonlocal sent
            if message["type"] == "http.response.body":
                sent += 1
                if sent == 3:
                    leave.set()
            await asyncio.sleep(0)

        answer = StreamedAnswer(pieces(), media_type="a/b")
        await asyncio.wait_for(answer({"type": "http"}, receive, send), 10)  # type: ignore[arg-type]
        return sent

    assert asyncio.run(story()) < 8
    assert closed.is_set()


class Piecemeal:
    """A part that is in memory, or has to be brought by a thread."""

    def __init__(self, text: bytes, *, is_there: bool) -> None:
        self.text = text
        self.is_there = is_there
        self.threads: list[int] = []

    def at_once(self) -> bytes:
        if not self.is_there:
            raise WouldWait
        self.threads.append(threading.get_ident())
        return self.text

    def pieces(self) -> Iterator[bytes]:
        self.threads.append(threading.get_ident())
        yield self.text[:1]
        yield self.text[1:]


@pytest.mark.parametrize("there", [(True, False, True), (False, True, True), (True, True, False)])
def test_parts_come_in_order_whether_they_are_there_or_have_to_be_brought(
    there: tuple[bool, ...],
) -> None:
    parts = [
        Piecemeal(bytes([65 + n]) * 700_000, is_there=is_there) for n, is_there in enumerate(there)
    ]
    loops = []

    async def handler(_request: Request) -> Response:
        loops.append(threading.get_ident())
        return PartsAnswer(parts, b"end", media_type="a/b", size_bytes=2_100_003)

    answer = client(handler).get("/")
    assert answer.content == b"".join(part.text for part in parts) + b"end"
    assert [part.threads == loops for part in parts] == list(there)


def test_a_part_that_is_damaged_in_the_middle_breaks_the_answer_off() -> None:
    class Damaged(Piecemeal):
        def pieces(self) -> Iterator[bytes]:
            raise Broken("It is damaged.")

    def handler(_request: Request) -> Response:
        parts = [Piecemeal(b"good", is_there=True), Damaged(b"", is_there=False)]
        return PartsAnswer(parts, b"end", media_type="a/b")

    with pytest.raises(Broken):
        client(handler).get("/")


def test_an_error_before_the_first_byte_reaches_the_door() -> None:
    def pieces() -> Iterator[bytes]:
        raise LookupError("gone")
        yield b""

    def handler(_request: Request) -> Response:
        return StreamedAnswer(pieces(), media_type="a/b")

    with pytest.raises(LookupError):
        client(handler).get("/")


def test_json_is_utf8_and_compressed_only_for_who_takes_it() -> None:
    def handler(request: Request) -> Response:
        return list_answer(request, list_form(request), [{"name": "Ñandú 山田"}] * 200)

    plain = client(handler).get("/", headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.json()[0]["name"] == "Ñandú 山田"
    assert plain.headers["content-type"] == "application/dicom+json"
    packed = client(handler).get("/", headers={"accept-encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.json() == plain.json()
    refused = client(handler).get("/", headers={"accept-encoding": "gzip;q=0, identity"})
    assert "content-encoding" not in refused.headers


def test_c37_json_in_pieces_is_compressed_on_the_way() -> None:
    def handler(request: Request) -> Response:
        return array_answer(request, list_form(request), iter([b"[1,", b"2]"]), headers={})

    answer = client(handler).get("/", headers={"accept-encoding": "br, gzip;q=0.5"})
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.json() == [1, 2]
    assert gzip.decompress(b"".join(gzipped([b"a", b"b"]))) == b"ab"


def test_f067_who_asks_for_xml_gets_parts_of_xml() -> None:
    def handler(request: Request) -> Response:
        models = [{"00100020": {"vr": "LO", "Value": ["7"]}}] * 2
        return list_answer(request, list_form(request), models)

    accept = 'multipart/related; type="application/dicom+xml"'
    answer = client(handler).get("/", headers={"accept": accept})
    assert answer.headers["content-type"].startswith(accept)
    assert answer.text.count("<NativeDicomModel") == 2


@pytest.mark.parametrize(
    ("header", "same"),
    [
        ('"v1"', True),
        ('W/"v1"', True),
        ('"v0", W/"v1"', True),
        ("*", True),
        ('"v2"', False),
        ("", False),
    ],
)
def test_c37_an_unchanged_version_is_recognised(header: str, same: bool) -> None:
    def handler(request: Request) -> Response:
        return not_modified("v1") if is_unchanged(request, "v1") else Response("new")

    answer = client(handler).get("/", headers={"if-none-match": header})
    assert answer.status_code == (304 if same else 200)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("bytes=0-9", (0, 10)),
        ("bytes=90-", (90, 100)),
        ("bytes=-10", (90, 100)),
        ("bytes=-1000", (0, 100)),
        ("bytes=0-1000", (0, 100)),
        ("bytes=100-", (100, 100)),
        ("bytes=-0", (100, 100)),
        ("bytes=5-2", None),
        ("bytes=0-1,5-6", None),
        ("items=0-1", None),
        ("bytes=-", None),
        ("bytes=" + "9" * 40 + "-", None),
    ],
)
def test_c45_one_range_of_bytes_is_read_and_whatever_else_is_no_range(
    header: str | None, expected: tuple[int, int] | None
) -> None:
    assert byte_range(header, 100) == expected


def test_c45_a_range_is_answered_with_206_and_an_impossible_one_with_416() -> None:
    data = bytes(range(100))

    def handler(request: Request) -> Response:
        return answer_range(request, lambda a, b: [data[a:b]], 100, media_type="video/mp4")

    part = client(handler).get("/", headers={"range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, data[10:20])
    assert part.headers["content-range"] == "bytes 10-19/100"
    none = client(handler).get("/", headers={"range": "bytes=100-"})
    assert (none.status_code, none.headers["content-range"]) == (416, "bytes */100")
    assert client(handler).get("/").headers["accept-ranges"] == "bytes"
    other = client(handler).get("/", headers={"range": "bytes=10-19", "if-range": '"before"'})
    assert (other.status_code, other.content) == (200, data)


def test_a_warning_cannot_break_the_header() -> None:
    assert warning() == {}
    assert warning("ok", 'bad" \r\nSet-Cookie: x\x00é') == {
        "warning": '299 pacsteward "ok", 299 pacsteward "bad? ??Set-Cookie: x??"'
    }
