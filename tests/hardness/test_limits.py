"""The limits that settings name, from outside: what is at a limit passes, one beyond does not.

The product under test has low limits, so that it costs little to reach them. That the defaults are
those which are promised is looked at by itself.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from pacsteward.app import FLOOR_SETTINGS, find_all_rooms
from pacsteward.base.settings import load
from tests.hardness import wire
from tests.hardness.data_sets import (
    Hostile,
    deflate,
    encoded,
    image,
    made,
    raw,
    renamed,
    with_elements,
)
from tests.hardness.http_wire import request, say
from tests.hardness.target import Target
from tests.hardness.wire import DEFLATED, Line, associate_rq, item
from tests.support.product import Product
from tests.support.samples import part10, small

MIB = 1024**2
LOW = {
    "DICOM__ASSOCIATE_PDU_BYTES_MAX": 4096,
    "DICOM__PDU_BYTES_MAX": 131_072,
    "DICOM__COMMAND_SET_BYTES_MAX": 1024,
    "DICOM__IDENTIFIER_BYTES_MAX": 4096,
    "DICOM__ARTIM_S": 1,
    "DICOM__DATA_SET_IDLE_S": 1,
    "DICOM__ASSOCIATION_IDLE_S": 3,
    "ARCHIVE__SEQUENCE_DEPTH_MAX": 5,
    "ARCHIVE__LARGEST_OBJECT_BYTES": MIB,
    "ARCHIVE__INFLATED_BYTES_MAX": MIB,
    "WEB__HEADERS_MAX": 20,
    "WEB__HEADER_BLOCK_BYTES_MAX": 2048,
    "WEB__JSON_DEPTH_MAX": 8,
    "WEB__BODY_MAX_BYTES": 4096,
    "STORAGE__MAX_PARTS": 3,
    "STORAGE__MAX_REQUEST_BYTES": MIB // 2,
    "RETRIEVE__RENDERED_PIXELS_MAX": 65_536,
}
PROMISED = {
    "dicom.pdu_bytes_max": 256 * 1024,
    "dicom.associate_pdu_bytes_max": 128 * 1024,
    "dicom.command_set_bytes_max": 64 * 1024,
    "dicom.artim_s": 10,
    "dicom.data_set_idle_s": 30,
    "dicom.association_idle_s": 600,
    "archive.sequence_depth_max": 64,
    "archive.largest_object_bytes": 4 * 1024**3,
    "archive.inflated_bytes_max": 4 * 1024**3,
    "archive.query_timeout_s": 5,
    "web.json_depth_max": 64,
    "web.body_max_bytes": 8 * MIB,
    "web.header_block_bytes_max": 64 * 1024,
    "web.headers_max": 100,
    "storage.max_parts": 10_000,
    "query.max_results": 1000,
    "retrieve.rendered_pixels_max": 100_000_000,
    "retrieve.decoder_memory_bytes": 512 * MIB,
    "retrieve.decoder_time_s": 10,
}
CUT = None
PATIENCE_S = 25.0


@pytest.fixture(scope="module")
def low(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """Give a running product with low limits."""
    root = tmp_path_factory.mktemp("limits")
    environment = {f"PACSTEWARD_{name}": str(value) for name, value in LOW.items()}
    running = Target(Product(root / "archive", environment).start(), root)
    yield running
    for client in (*running.clients.values(), running.stranger):
        client.close()
    running.product.stop()


def test_the_defaults_are_the_promised_limits() -> None:
    sections = [*FLOOR_SETTINGS, *(one for room in find_all_rooms() for one in room.settings)]
    defaults = {row.name: row.default for row in load(sections, environ={}).explain()}
    assert {name: defaults[name] for name in PROMISED} == PROMISED


# --- DIMSE ---------------------------------------------------------------------------------------


def _line(low: Target) -> Line:
    line = low.line()
    line.socket.settimeout(PATIENCE_S)
    return line


def _heard(low: Target, data: bytes) -> int | None:
    with _line(low) as line:
        line.send(data)
        answer = line.receive()
        return CUT if answer is None else answer[0]


def test_an_association_request_has_a_length(low: Target) -> None:
    def of(length: int) -> bytes:
        user = item(0x51, struct.pack(">I", 65536)) + item(0x52, b"1.2.3.4")
        short = associate_rq(user=item(0x50, user))
        padding = item(0x99, bytes(length - (len(short) - 6) - 4))
        return associate_rq(user=item(0x50, user + padding))

    assert _heard(low, of(4096)) == wire.ASSOCIATE_AC
    assert _heard(low, of(4097)) == wire.ABORT
    # The length field alone is enough: nothing is waited for.
    assert _heard(low, of(4097)[:6]) == wire.ABORT


def test_a_pdu_has_a_length(low: Target) -> None:
    pixels = encoded(image())
    filler = raw(0x00991001, b"OB", bytes(131_072 - 6 - len(pixels) - 12))
    fitting = made("fitting", with_elements(filler))
    assert _store(low, fitting, piece=131_066) == 0
    with _line(low) as line:
        line.associate()
        line.send(wire.pdu(wire.P_DATA, bytes(100), 131_073))
        assert line.receive() in ((wire.ABORT, b"\0\0\2\6"), (wire.ABORT, b"\0\0\2\0"))


@pytest.mark.parametrize(("size", "is_taken"), [(1024, True), (1026, False)])
def test_a_command_set_has_a_length(low: Target, size: int, is_taken: bool) -> None:
    echo = wire.command(wire.request(0x30))
    padded = wire.command({**wire.request(0x30), 0x0902: bytes(size - len(echo) - 8)})
    assert len(padded) == size
    with _line(low) as line:
        line.associate()
        line.send(wire.p_data(wire.ECHO, padded, is_command=True))
        answer = line.response()
        assert (answer is not None and answer[0x0900] == b"\0\0") is is_taken


@pytest.mark.parametrize(("size", "is_taken"), [(4096, True), (4098, False)])
def test_an_identifier_has_a_length(low: Target, size: int, is_taken: bool) -> None:
    level = struct.pack("<HHI", 8, 0x52, 6) + b"STUDY "
    comment = struct.pack("<HHI", 0x10, 0x4000, size - len(level) - 8)
    identifier = level + comment + b" " * (size - len(level) - 8)
    asked = wire.command(wire.request(0x20, wire.STUDY_ROOT_FIND, has_data=True, _0700=0))
    with _line(low) as line:
        line.associate()
        line.send(wire.p_data(wire.FIND, asked, is_command=True))
        line.send(wire.p_data(wire.FIND, identifier, is_command=False))
        while (answer := line.response()) is not None and answer[0x0900] == b"\0\xff":
            continue
        assert (answer is not None and answer[0x0900] == b"\0\0") is is_taken


def _store(low: Target, one: Hostile, *, piece: int = 60_000) -> int | None:
    contexts = wire.context(3, one.sop_class, [one.syntax])
    with _line(low) as line:
        line.associate(associate_rq(contexts=contexts))
        return line.store(3, one.sop_class, one.uid, one.data, piece=piece)


def _nested(depth: int) -> bytes:
    item_begin, item_end = b"\xfe\xff\x00\xe0" + b"\xff" * 4, b"\xfe\xff\x0d\xe0" + bytes(4)
    opening = raw(0x00081140, b"SQ", b"", 0xFFFFFFFF) + item_begin
    return opening * depth + (item_end + b"\xfe\xff\xdd\xe0" + bytes(4)) * depth


def test_sequences_have_a_depth(low: Target) -> None:
    assert _store(low, made("five deep", with_elements(_nested(5)))) == 0
    assert _store(low, made("six deep", with_elements(_nested(6)))) == 0xC000


def test_an_object_has_a_size(low: Target) -> None:
    short = len(encoded(image())) + 12
    at_limit = made("a mebibyte", with_elements(raw(0x00991001, b"OB", bytes(MIB - short))))
    beyond = made("more", with_elements(raw(0x00991001, b"OB", bytes(MIB - short + 2))))
    assert len(at_limit.data) == MIB
    endless = made("twice", with_elements(raw(0x00991001, b"OB", bytes(2 * MIB))))
    assert _store(low, at_limit) == 0
    # Not A700, after which most devices send the same again, and again.
    assert _store(low, beyond) == 0xC000
    assert _store(low, endless) == CUT


def test_a_deflated_object_has_a_size(low: Target) -> None:
    short = len(encoded(image())) + 12
    for extra, status in ((0, 0), (2, 0xC000)):
        plain = with_elements(raw(0x00991001, b"OB", bytes(MIB - short + extra)))
        uid = made("deflated", b"").uid
        packed = deflate(renamed(plain, uid))
        assert _store(low, Hostile("deflated", uid, DEFLATED, packed)) == status


def test_who_says_nothing_is_cut_when_its_time_is_over(low: Target) -> None:
    def silent(_line: Line) -> None: ...

    def halfway(line: Line) -> None:
        line.associate()
        line.send(wire.C_ECHO[:30])

    def between(line: Line) -> None:
        line.associate()
        assert line.echo()

    # Without the settings they would be cut after 10, 30 and 600 s.
    for begin, patience_s in ((silent, 9.0), (halfway, PATIENCE_S), (between, PATIENCE_S)):
        with _line(low) as line:
            begin(line)
            line.socket.settimeout(patience_s)
            while line.receive() is not None:
                continue


# --- HTTP ----------------------------------------------------------------------------------------


def _status(low: Target, data: bytes) -> int:
    return say(low.product.http_port, data, patience_s=PATIENCE_S).status


def test_headers_have_a_number(low: Target) -> None:
    for more, status in ((18, 404), (19, 431)):
        lines = [f"X-{number}: 1" for number in range(more)]
        assert _status(low, request("GET", "/dicom-web/none", low.token(), *lines)) == status


def test_headers_have_a_size(low: Target) -> None:
    there = len("host" + "localhost" + "authorization" + f"Bearer {low.token()}" + "x-long")
    for size, status in ((2048, 404), (2049, 431)):
        line = "X-Long: " + "a" * (size - there)
        assert _status(low, request("GET", "/dicom-web/none", low.token(), line)) == status


def test_json_has_a_depth(low: Target) -> None:
    for depth, is_deep in ((8, False), (9, True)):
        body = b'{"a":' * depth + b"1" + b"}" * depth
        kind = "Content-Type: application/json"
        asked = request("POST", "/api/v1/peers", low.token(), kind, body=body)
        heard = say(low.product.http_port, asked, patience_s=PATIENCE_S)
        assert heard.status == 400
        assert (b"levels deep" in heard.body) is is_deep


def test_a_body_has_a_size(low: Target) -> None:
    kind = "Content-Type: application/json"
    for size, status in ((4096, 400), (4097, 413)):
        body = b"[" + b" " * (size - 2) + b"]"
        assert (
            _status(low, request("POST", "/api/v1/peers", low.token(), kind, body=body)) == status
        )


def _stow(low: Target, content: bytes, kind: str = "application/dicom") -> int:
    client = low.client()
    return client.post(
        "/dicom-web/studies", content=content, headers={"content-type": kind}
    ).status_code


def test_a_request_has_a_number_of_parts_and_a_size(low: Target) -> None:
    related = 'multipart/related; type="application/dicom"; boundary=B'
    parts = [
        b"--B\r\nContent-Type: application/dicom\r\n\r\n" + part10(small(95, 1, n)) + b"\r\n"
        for n in range(1, 5)
    ]
    assert _stow(low, b"".join(parts[:3]) + b"--B--", related) == 200
    assert _stow(low, b"".join(parts) + b"--B--", related) == 413
    file = part10(small(95, 1, 1))
    assert _stow(low, file + bytes(MIB // 2 - len(file))) in (200, 202)
    assert _stow(low, file + bytes(MIB // 2 - len(file) + 1)) == 413


def test_a_picture_has_a_number_of_pixels(low: Target) -> None:
    for rows, status in ((256, 200), (257, 413)):
        data = small(94, 1, rows, PixelData=bytes(rows * 256 * 2))
        data.Rows, data.Columns = rows, 256
        assert _stow(low, part10(data)) == 200
        at = f"/dicom-web/studies/2.25.99.94/series/2.25.99.94.1/instances/{data.SOPInstanceUID}"
        assert low.client().get(f"{at}/rendered").status_code == status
