"""Little that becomes much: each bomb with what throws it and what must be heard.

References
----------
The limits are those of `docs/reference/settings.md`.
"""

from __future__ import annotations

import gzip
import os
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.hardness import wire
from tests.hardness.data_sets import (
    SERIES,
    STUDY,
    Hostile,
    encoded,
    image,
    made,
    raw,
    renamed,
    template,
    with_elements,
)
from tests.hardness.http_wire import request, say
from tests.hardness.target import Target
from tests.hardness.wire import DEFLATED, EXPLICIT, STUDY_ROOT_FIND, associate_rq, context, p_data

STOW = "/dicom-web/studies"
AT = "/dicom-web/studies/2.25.99.1/series/2.25.99.1.1/instances/2.25.99.1.1.1"
ITEM = b"\xfe\xff\x00\xe0"
PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Bomb:
    """One bomb.

    Parameters
    ----------
    throw
        Throws it and says what came: a status, or "closed".
    expected
        What it may be.
    seconds_max
        How long that may take: R12 says three seconds for an answer or a close. Longer only where
        the bomb itself takes long to be sent, or what it asks for is legitimate work.
    """

    name: str
    throw: Callable[[Target], str]
    expected: tuple[str, ...]
    seconds_max: float = 3.0


# --- the upper layer and C-STORE -----------------------------------------------------------------


def _store(one: Hostile, piece: int = 60_000) -> Callable[[Target], str]:
    def throw(target: Target) -> str:
        with target.line() as line:
            line.socket.settimeout(PATIENCE_S)
            line.associate(associate_rq(contexts=context(1, one.sop_class, [one.syntax])))
            status = line.store(1, one.sop_class, one.uid, one.data, piece=piece)
            return "closed" if status is None else f"{status:04X}"

    return throw


def _first_pdu(data: bytes) -> Callable[[Target], str]:
    def throw(target: Target) -> str:
        with target.line() as line:
            line.send(data)
            answer = line.receive()
            return "closed" if answer is None else f"PDU {answer[0]}"

    return throw


def _inside(data: bytes) -> Callable[[Target], str]:
    def throw(target: Target) -> str:
        with target.line() as line:
            line.associate()
            line.send(data)
            answer = line.receive()
            return "closed" if answer is None else f"PDU {answer[0]}"

    return throw


def deflated(size: int) -> Hostile:
    """Return zeros that deflate by a factor just below the limit, before an image's pixels."""
    uid = made("", b"").uid
    head = renamed(template(EXPLICIT), uid)
    noise = os.urandom(size // 380 & ~1)
    pixels = head.rindex(struct.pack("<HH2s", 0x7FE0, 0x10, b"OW"))
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    filler = raw(0x00991001, b"OB", noise) + raw(0x00991002, b"OB", b"", size)
    packed = [packer.compress(head[:pixels] + filler)]
    packed += [packer.compress(bytes(1 << 20)) for _ in range(size >> 20)]
    packed += [packer.compress(head[pixels:]), packer.flush()]
    data = b"".join(packed)
    return Hostile("deflated", uid, DEFLATED, data + b"\0" * (len(data) % 2))


def too_deflated() -> Hostile:
    """Return zeros that deflate by a thousand."""
    uid = made("", b"").uid
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    size = 192 << 20
    head = renamed(template(EXPLICIT), uid) + raw(0x00991001, b"OB", b"", size)
    packed = [packer.compress(head), *(packer.compress(bytes(1 << 20)) for _ in range(size >> 20))]
    data = b"".join((*packed, packer.flush()))
    return Hostile("too deflated", uid, DEFLATED, data + b"\0" * (len(data) % 2))


def _nested(depth: int) -> bytes:
    opening = raw(0x00081140, b"SQ", b"", 0xFFFFFFFF) + ITEM + b"\xff" * 4
    return (
        opening * depth + (b"\xfe\xff\x0d\xe0" + bytes(4) + b"\xfe\xff\xdd\xe0" + bytes(4)) * depth
    )


def wire_bombs() -> Iterator[Bomb]:
    """Give those that need no stored object."""
    long = wire.pdu(1, bytes(100), 0xFFFFFFFF)
    yield Bomb("A-ASSOCIATE-RQ of 4 GiB", _first_pdu(long), ("PDU 7", "closed"))
    yield Bomb("P-DATA of 4 GiB", _inside(wire.pdu(4, bytes(100), 0xFFFFFFFF)), ("PDU 7",))
    half = p_data(wire.ECHO, bytes(100), is_command=True, is_last=False)
    yield Bomb("a command without end", _inside(half * 20_000), ("PDU 7", "closed"))
    tiny = made("tiny", with_elements(raw(0x00991001, b"OB", bytes(100_000))))
    yield Bomb("100,000 tiny PDVs", _store(tiny, piece=1), ("0000",), 20)
    empty = pdu_of_empty_fragments()
    yield Bomb("20,000 empty PDVs in a PDU", _inside(empty), ("PDU 4", "PDU 7"), 5)
    yield Bomb("a deflate bomb", _store(too_deflated()), ("C000",))
    for depth in (900, 50_000):
        deep = made(f"{depth} deep", with_elements(_nested(depth)))
        yield Bomb(f"{depth} sequences deep", _store(deep), ("C000",))


def pdu_of_empty_fragments() -> bytes:
    """Return PDUs full of fragments without a byte, and a C-ECHO behind."""
    empty = wire.pdu(4, wire.pdv(wire.ECHO, 1, b"") * 10_000)
    return empty * 2 + wire.C_ECHO


# --- what is stored, and then asked for ----------------------------------------------------------


def claims() -> Iterator[Hostile]:
    """Give objects that are kept, and hard on who looks at them."""
    empty = raw(0x00991001, b"LO", b"")
    yield made("1,000,000 empty elements", with_elements(empty * 1_000_000))
    items = (ITEM + bytes(4)) * 500_000
    yield made("500,000 items", with_elements(raw(0x00400275, b"SQ", items)))
    inner = ITEM + struct.pack("<I", 8 * 500_000) + raw(0x00400009, b"SH", b"") * 500_000
    yield made("500,000 elements in an item", with_elements(raw(0x00400275, b"SQ", inner)))
    yield made("a text of 100 MB", with_elements(raw(0x00991001, b"UT", b"x" * 100_000_000)))
    yield made(
        "65535 x 65535 x 10000", encoded(image(Rows=65535, Columns=65535, NumberOfFrames=10_000))
    )
    yield made("2147483647 frames", encoded(image(NumberOfFrames=2_147_483_647)))
    yield deflated(300 << 20)
    yield made("palette of segments", encoded(_segmented_palette()))
    yield made("lookup table of 65536 entries", encoded(_lookup_table(0)))
    yield made("lookup table of no length", encoded(_lookup_table(2)))


def _segmented_palette() -> object:
    data = image(PhotometricInterpretation="PALETTE COLOR", SamplesPerPixel=1)
    # An indirect segment copies others, again and again (PS3.3 C.7.9.2.2).
    words = [0, 1, 7]
    for _ in range(2000):
        words += [2, 60_000, 0, 0]
    table = struct.pack(f"<{len(words)}H", *words)
    for colour in (1, 2, 3):
        data.add_new(0x00281100 + colour, "US", [0, 0, 16])
        data.add_new(0x00281220 + colour, "OW", table)
    return data


def _lookup_table(length: int) -> object:
    from pydicom import Dataset

    table = Dataset()
    table.add_new(0x00283002, "US", [0, 0, 16])
    table.add_new(0x00283006, "OW", bytes(length or 131_072))
    return image(VOILUTSequence=[table] * 50)


def _get(path: str, accept: str = "*/*") -> Callable[[Target], str]:
    """Ask for a resource and read it to its end, without keeping it."""

    def throw(target: Target) -> str:
        client = target.client()
        with client.stream("GET", path, headers={"accept": accept}, timeout=PATIENCE_S) as answer:
            for _ in answer.iter_raw():
                pass
            return str(answer.status_code)

    return throw


_EXPLICIT = f'multipart/related; type="application/dicom"; transfer-syntax={EXPLICIT}'
_FRAME = f'multipart/related; type="application/octet-stream"; transfer-syntax={EXPLICIT}'


def stored_bombs(one: Hostile) -> Iterator[Bomb]:
    """Give what asks for an object in every way, after it was stored."""
    at = f"/dicom-web/studies/{STUDY}/series/{SERIES}/instances/{one.uid}"
    asked = ("200", "400", "404", "406", "409", "413")
    yield Bomb(f"{one.name}: C-STORE", _store(one), ("0000", "B007", "C000"), 10)
    for path, accept in (
        ("/metadata", "*/*"),
        ("/rendered", "image/jpeg"),
        ("/thumbnail", "image/png"),
        ("/frames/1", _FRAME),
        ("/bulkdata/00991001", "*/*"),
    ):
        yield Bomb(f"{one.name}: {path}", _get(at + path, accept), asked, 5)
    yield Bomb(f"{one.name}: converted", _get(at, _EXPLICIT), asked, 30)
    page = f"/studies/{STUDY}/series/{SERIES}/instances/{one.uid}"
    yield Bomb(f"{one.name}: page", _get(page), ("200", "413"), 5)


# --- questions -----------------------------------------------------------------------------------


def _find(*elements: bytes) -> Callable[[Target], str]:
    def throw(target: Target) -> str:
        identifier = b"".join((wire.explicit(0x00080052, "CS", "STUDY"), *elements))
        asked = wire.request(0x20, STUDY_ROOT_FIND, has_data=True, _0700=0)
        with target.line() as line:
            line.socket.settimeout(PATIENCE_S)
            line.associate(associate_rq(contexts=context(1, STUDY_ROOT_FIND, [EXPLICIT])))
            line.send(p_data(1, wire.command(asked), is_command=True))
            for place in range(0, len(identifier), 60_000):
                piece, rest = identifier[place : place + 60_000], len(identifier) - place
                line.send(p_data(1, piece, is_command=False, is_last=rest <= 60_000))
            while (answer := line.response()) is not None and answer[0x0900] in (
                b"\0\xff",
                b"\1\xff",
            ):
                continue
            return "closed" if answer is None else answer[0x0900][::-1].hex().upper()

    return throw


def questions() -> Iterator[Bomb]:
    """Give C-FIND and QIDO-RS that ask too much."""
    said = ("0000", "A700", "A900", "C000", "closed")
    private = [raw(0x00091000 + number, b"LO", b"") for number in range(10_000)]
    yield Bomb("C-FIND with 10,000 keys", _find(*private), said)
    yield Bomb("C-FIND with 4,000 keys", _find(*private[:4000]), said, 5)
    for name, text in {
        "*a": b"*a" * (1 << 19),
        "?": b"?" * (1 << 20),
        "*a?": b"*a?" * 349_524 + b"  ",
        "backslashes": b"a\\" * (1 << 19),
    }.items():
        for tag in (0x00100010, 0x00100020, 0x00081030):
            yield Bomb(f"C-FIND, 1 MB of {name}", _find(raw(tag, b"UT", text)), said)
    yield Bomb("C-FIND, 170,000 UIDs", _find(raw(0x0020000D, b"UT", b"1.2.3\\" * 170_000)), said)

    def ask(path: str) -> Callable[[Target], str]:
        return _http(lambda token: request("GET", path, token))

    heard = ("200", "204", "400", "413", "414", "431")
    yield Bomb("includefield x 10,000", ask(f"{STOW}?" + "includefield=x&" * 10_000), heard)
    yield Bomb("includefield of 6,000", ask(f"{STOW}?includefield=" + "00100010," * 6000), heard)
    yield Bomb("4,000 keys", ask(f"{STOW}?" + "00100010=x&" * 4000), heard)
    for pattern in ("*a" * 5, "*a" * 20_000, "?" * 50_000, "*?" * 20_000):
        yield Bomb(f"PatientName={pattern[:10]}", ask(f"{STOW}?PatientName={pattern}"), heard)
        yield Bomb(f"q={pattern[:10]}", ask(f"/studies?q={pattern}"), heard)
    yield Bomb("20,000 frames", ask(f"{AT}/frames/" + "1," * 20_000), heard)
    yield Bomb("a viewport of 10^10", ask(f"{AT}/rendered?viewport=100000,100000"), heard)


# --- bodies --------------------------------------------------------------------------------------


def _http(make: Callable[[str], bytes], *, is_whole: bool = True) -> Callable[[Target], str]:
    def throw(target: Target) -> str:
        sent = make(target.token())
        heard = say(target.product.http_port, sent, is_whole=is_whole, patience_s=PATIENCE_S)
        return str(heard.status or "closed")

    return throw


def _endless(path: str, kind: str, size: int) -> Callable[[Target], str]:
    """Send chunks until somebody says that it is enough."""

    def throw(target: Target) -> str:
        head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {target.token()}\r\n"
            f"Content-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        piece = b"10000\r\n" + b"a" * 65_536 + b"\r\n"
        address = ("127.0.0.1", target.product.http_port)
        with socket.create_connection(address, timeout=PATIENCE_S) as line:
            try:
                line.sendall(head.encode())
                for _ in range(size // 65_536):
                    line.sendall(piece)
                line.shutdown(socket.SHUT_WR)
                answer = line.recv(100)
            except OSError:
                return "closed"
            return answer.split(b" ")[1].decode() if b" " in answer else "closed"

    return throw


def _post(
    path: str, kind: str, body: bytes, *more: str, length: int | None = None
) -> Callable[[Target], str]:
    def make(token: str) -> bytes:
        headers = (f"Content-Type: {kind}", *more)
        return request("POST", path, token, *headers, body=body, length=length)

    return _http(make, is_whole=length is None)


FORM, JSON, FILE = "application/x-www-form-urlencoded", "application/json", "application/dicom"
METADATA = "application/dicom+json"
RELATED = 'multipart/related; type="application/dicom"; boundary=B'
PEERS = "/api/v1/peers"


def bodies() -> Iterator[Bomb]:
    """Give request bodies that are too long, too deep, or become too much."""
    refused = ("400", "413", "415", "closed")
    packed = gzip.compress(bytes(1 << 28), 9)
    for path, kind in ((PEERS, JSON), (STOW, FILE)):
        sent = _post(path, kind, packed, "Content-Encoding: gzip")
        yield Bomb(f"gzip to {path}", sent, (*refused, "409"))
    for name, body in {
        "arrays": b"[" * 50_000 + b"]" * 50_000,
        "objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        "open": b"[" * 8_000_000,
        "wide": b"[" + b"[]," * 2_700_000 + b"[]]",
        "a number": b'{"port":' + b"9" * 8_000_000 + b"}",
    }.items():
        yield Bomb(f"JSON, {name}", _post(PEERS, JSON, body), refused)
        yield Bomb(f"metadata, {name}", _post(STOW, METADATA, body), refused)
    for path, kind in ((STOW, FILE), ("/login", FORM), (PEERS, JSON)):
        lying = _post(path, kind, b"x", length=10**15)
        yield Bomb(f"Content-Length 10^15 to {path}", lying, refused)
    for path, kind in (("/login", FORM), (PEERS, JSON)):
        yield Bomb(f"chunks without end to {path}", _endless(path, kind, 64 << 20), refused)
    many = _endless(STOW, FILE, 300 << 20)
    yield Bomb("300 MB of chunks to STOW-RS", many, (*refused, "409"), 30)
    for kind, content in {
        "application/zip": b"PK\x03\x04" + bytes(1000),
        "application/pdf": b"%PDF-1.7\n" + bytes(1000),
        "text/html": b"<script>alert(1)</script>",
    }.items():
        body = f"--B\r\nContent-Type: {kind}\r\n\r\n".encode() + content + b"\r\n--B--"
        yield Bomb(f"a part of type {kind}", _post(STOW, RELATED, body), ("415",))
