"""Parts written and read: every byte in its place, however the network cuts them."""

from __future__ import annotations

import contextlib
import email.parser
import email.policy
import itertools
import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pacsteward.base.errors import Invalid, PacstewardError
from pacsteward.dicom.web.errors import TooLarge
from pacsteward.dicom.web.multipart import (
    PART_HEADER_BYTES_MAX,
    End,
    PartBegin,
    PartData,
    PartEnd,
    Reader,
    Writer,
    boundary_of,
)
from pacsteward.dicom.web.negotiation import parse_media_type


def written(payloads: list[bytes], boundary: str = "b") -> bytes:
    writer = Writer("application/dicom", boundary)
    parts = [
        writer.head({"Content-Type": "application/dicom"}) + payload + writer.gap
        for payload in payloads
    ]
    return b"".join(parts) + writer.end


def read(body: bytes, boundary: str = "b", size: int = 1 << 16) -> list[tuple[dict, bytes]]:
    reader = Reader(boundary)
    parts: list[tuple[dict, bytes]] = []
    for start in range(0, len(body), size):
        for event in reader.feed(body[start : start + size]):
            if isinstance(event, PartBegin):
                parts.append((dict(event.headers), b""))
            elif isinstance(event, PartData):
                headers, data = parts[-1]
                parts[-1] = headers, data + bytes(event.data)
            else:
                assert isinstance(event, PartEnd | End)
    reader.close()
    return parts


def read_in_memory(body: bytes, cuts: list[int], boundary: str = "b") -> list[tuple[dict, bytes]]:
    """Do the same with pieces that lie in memory, which is written over after the next piece."""
    reader = Reader(boundary)
    parts: list[tuple[dict, bytes]] = []
    before = bytearray()
    for start, end in itertools.pairwise([0, *cuts, len(body)]):
        piece = bytearray(body[start:end])
        for event in reader.feed(memoryview(piece)):
            if isinstance(event, PartBegin):
                parts.append((dict(event.headers), b""))
            elif isinstance(event, PartData):
                headers, data = parts[-1]
                parts[-1] = headers, data + bytes(event.data)
        before[:] = b"-" * len(before)
        before = piece
    reader.close()
    return parts


def test_c50_the_line_breaks_are_exact() -> None:
    assert written([b"one", b"two"]) == (
        b"--b\r\nContent-Type: application/dicom\r\n\r\none\r\n"
        b"--b\r\nContent-Type: application/dicom\r\n\r\ntwo\r\n"
        b"--b--\r\n"
    )


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("before", [b"\r\n", b"For old mail readers.\r\n", b"--a --b\r\n"])
def test_what_stands_before_the_first_boundary_is_left_out(before: bytes, size: int) -> None:
    assert [data for _, data in read(before + written([b"one", b"two"]), size=size)] == [
        b"one", b"two",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "body", [written([b"one"], "a"), b"--a", b"x" * (2 * PART_HEADER_BYTES_MAX)]
)
def test_a_body_with_another_boundary_is_told_apart_from_one_that_is_cut(body: bytes) -> None:
    with pytest.raises(Invalid, match="boundary that its Content-Type names"):
        read(body)
    with pytest.raises(Invalid, match="cut short"):
        read(written([b"one"])[:-6])


def test_what_we_write_is_what_an_independent_parser_reads() -> None:
    writer = Writer("application/dicom")
    payloads = [b"a\r\n--b", b"", b"\r\n", bytes(range(256))]
    body = b"".join(
        writer.head(
            {"Content-Type": "application/octet-stream", "Content-Transfer-Encoding": "binary"}
        )
        + payload
        + writer.gap
        for payload in payloads
    )
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(
        f"Content-Type: {writer.content_type}\r\n\r\n".encode() + body + writer.end
    )
    assert message.get_content_type() == "multipart/related"
    assert message.get_param("type") == "application/dicom"
    assert len(list(message.iter_parts())) == len(payloads)


@given(
    st.lists(st.binary(max_size=200), min_size=1, max_size=5),
    st.integers(min_value=1, max_value=97),
)
def test_parts_survive_any_cutting_of_the_stream(payloads: list[bytes], size: int) -> None:
    # What looks like a delimiter must not be in the payload; the sender sees to that.
    payloads = [payload.replace(b"--b", b"--x") for payload in payloads]
    assert [data for _, data in read(written(payloads), size=size)] == payloads


@pytest.mark.parametrize(
    "tail", [b"\r", b"\r\n", b"\r\n-", b"\r\n--", b"\r\n--bo", b"\r\n\r\n--boundar"]
)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_the_beginning_of_a_boundary_in_the_data_is_data(tail: bytes, size: int) -> None:
    payload = b"data" + tail + b"more" + tail
    ((_, data),) = read(written([payload], "boundary"), "boundary", size)
    assert data == payload


@given(
    st.lists(st.sampled_from([b"\r", b"\n", b"-", b"b", b"\r\n--b", b"x"]), max_size=40),
    st.integers(min_value=1, max_value=9),
)
def test_what_only_looks_like_a_boundary_is_data_however_it_is_cut(
    pieces: list[bytes], size: int
) -> None:
    """A delimiter counts when a line break or the two hyphens of the end follow it."""
    payload = b"".join(pieces) + b"."
    payload = payload.replace(b"\r\n--b\r\n", b"").replace(b"\r\n--b--", b"")
    assume(b"\r\n--b\r\n" not in payload and b"\r\n--b--" not in payload)
    assert [data for _, data in read(written([payload, b"2"]), size=size)] == [payload, b"2"]


@pytest.mark.parametrize("blanks", [b" ", b"\t", b" \t" * 100])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
def test_blanks_may_stand_behind_a_boundary(blanks: bytes, size: int) -> None:
    """RFC 2046 5.1.1: "receivers MUST be able to handle padding"."""
    body = written([b"one", b"two"]).replace(b"--b\r\n", b"--b" + blanks + b"\r\n")
    assert [data for _, data in read(body, size=size)] == [b"one", b"two"]


@given(
    st.lists(st.sampled_from([b"\r", b"\n", b" ", b"b", b"\r\n--b ", b"x"]), max_size=40),
    st.integers(min_value=1, max_value=9),
)
def test_a_boundary_with_blanks_and_no_line_break_is_data(pieces: list[bytes], size: int) -> None:
    payload = re.sub(rb"(?<=\r\n--b) *\r\n", b"", b"".join(pieces) + b".")
    assume(not re.search(rb"\r\n--b( *\r\n|--)", payload))
    assert [data for _, data in read(written([payload, b"2"]), size=size)] == [payload, b"2"]


@pytest.mark.parametrize("size", [40, 1000])
def test_data_are_views_of_what_came_in(size: int) -> None:
    body = written([b"x" * 100])
    reader = Reader("b")
    for start in range(0, len(body), size):
        chunk = body[start : start + size]
        for event in reader.feed(chunk):
            if isinstance(event, PartData) and len(event.data) > 5:
                assert event.data.obj is chunk
    assert reader.is_complete


def test_nothing_behind_the_end_counts() -> None:
    assert read(written([b"one"]) + written([b"two"])) == read(written([b"one"]))


@pytest.mark.parametrize("line", [b"no colon", b": no name", b"a b: c", b"A: x\rB: y", b" A: b"])
def test_header_lines_that_are_none_are_refused(line: bytes) -> None:
    with pytest.raises(Invalid, match="no multipart body"):
        read(b"--b\r\n" + line + b"\r\n\r\nx\r\n--b--")


def test_a_part_may_have_no_header_lines_but_not_a_thousand() -> None:
    assert read(b"--b\r\n\r\nx\r\n--b--") == [({}, b"x")]
    with pytest.raises(Invalid, match="more than 100 header lines"):
        read(b"--b\r\n" + b"A: b\r\n" * 101 + b"\r\nx\r\n--b--")


def test_parts_need_no_content_disposition_and_headers_are_found_in_any_case() -> None:
    ((headers, data),) = read(
        b"--b\r\nCONTENT-TYPE: application/dicom; transfer-syntax=1.2\r\n"
        b"Content-Location: /x\r\n\r\nX\r\n--b--"
    )
    assert headers == {
        "content-type": "application/dicom; transfer-syntax=1.2",
        "content-location": "/x",
    }
    assert data == b"X"


@pytest.mark.parametrize(
    "text",
    [
        'multipart/related; type="application/dicom"; boundary="a b"',
        "multipart/related; boundary=ab; type=application/dicom",
    ],
)
def test_c50_the_boundary_may_be_quoted_or_not(text: str) -> None:
    assert boundary_of(parse_media_type(text)).replace(" ", "") == "ab"


def test_a_boundary_somewhat_longer_than_it_may_be_is_taken() -> None:
    """Orthanc's is two UUIDs with a hyphen between them: 73 characters."""
    uuid = "dafc7fba-f532-4efe-b7e4-3dd0e460072a"
    media_type = parse_media_type(f"multipart/related; boundary={uuid}-{uuid}")
    boundary = boundary_of(media_type)
    assert [data for _, data in read(written([b"one"], boundary), boundary, 50)] == [b"one"]


@pytest.mark.parametrize("text", ["multipart/related", f"multipart/related; boundary={'x' * 257}"])
def test_a_missing_or_endless_boundary_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        boundary_of(parse_media_type(text))


def test_a_body_that_is_cut_short_is_noticed() -> None:
    with pytest.raises(Invalid, match="cut short"):
        read(b"--b\r\nContent-Type: application/dicom\r\n\r\nhalf")


def test_a_body_with_another_boundary_is_refused() -> None:
    with pytest.raises(Invalid):
        read(written([b"x"], "other"), "b")


def test_too_many_parts_are_refused() -> None:
    reader = Reader("b", max_parts=3)
    with pytest.raises(TooLarge):
        list(reader.feed(written([b"x"] * 4)))


def test_endless_header_lines_are_refused() -> None:
    line = b"X-A: " + b"a" * 8000 + b"\r\n"
    body = b"--b\r\n" + line * (PART_HEADER_BYTES_MAX // len(line) + 1) + b"\r\nx\r\n--b--"
    with pytest.raises(PacstewardError):
        read(body)


@given(st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    with contextlib.suppress(PacstewardError):
        read(b"--b\r\n" + body, size=50)


@given(
    st.lists(st.text("\r\n-b", max_size=12).map(str.encode), min_size=1, max_size=4),
    st.lists(st.integers(0, 400), max_size=30),
)
def test_parts_in_memory_are_read_wherever_the_memory_ends(
    payloads: list[bytes], places: list[int]
) -> None:
    assume(not any(b"\r\n--b" in b"\r\n" + payload + b"\r\n" for payload in payloads))
    body = written(payloads)
    cuts = sorted({place for place in places if 0 < place < len(body)})
    assert read_in_memory(body, cuts) == read(body)
    assert read_in_memory(body, list(range(1, len(body)))) == read(body)
