"""DICOM's upper layer spoken by hand: bytes on a socket, right or wrong.

Nothing of the product's own code takes part.

References
----------
PS3.8 9.3 (PDUs), Annex E (PDV); PS3.7 6.3.1 and Annex E (command sets).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
VERIFICATION = "1.2.840.10008.1.1"
CT_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
STUDY_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"
STUDY_ROOT_GET = "1.2.840.10008.5.1.4.1.2.2.3"
IMPLICIT, EXPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
DEFLATED, RLE = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.5"

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)

PATIENCE_S = 8.0
"""A door that neither answers nor closes for so long hangs. It is less than the ten seconds after
which the door cuts whoever says nothing."""
PDU_READ_MAX = 131_072
"""Beyond this length field a door must not wait for the rest."""

_SIZES = {"US": 2, "UL": 4}


def pdu(kind: int, body: bytes, length: int | None = None) -> bytes:
    """Return a PDU; `length` lies about its size."""
    return struct.pack(">BBI", kind, 0, len(body) if length is None else length) + body


def item(kind: int, body: bytes, length: int | None = None) -> bytes:
    """Return an item of an A-ASSOCIATE PDU."""
    return struct.pack(">BBH", kind, 0, len(body) if length is None else length) + body


def context(number: int, abstract: str, syntaxes: Sequence[str]) -> bytes:
    """Return a proposed presentation context."""
    inner = item(0x30, abstract.encode("latin-1"))
    inner += b"".join(item(0x40, one.encode("latin-1")) for one in syntaxes)
    return item(0x20, bytes((number & 255, 0, 0, 0)) + inner)


USER_INFORMATION = item(
    0x50, item(0x51, struct.pack(">I", 65536)) + item(0x52, b"1.2.3.4") + item(0x55, b"HOSTILE")
)

CONTEXTS = (
    context(1, VERIFICATION, [IMPLICIT])
    + context(3, CT_STORAGE, [EXPLICIT])
    + context(5, STUDY_ROOT_FIND, [IMPLICIT])
    + context(7, STUDY_ROOT_GET, [IMPLICIT])
    + context(9, STUDY_ROOT_MOVE, [IMPLICIT])
)
ECHO, STORE, FIND, GET, MOVE = 1, 3, 5, 7, 9
"""Context numbers of `CONTEXTS`."""


def associate_rq(
    *,
    contexts: bytes = CONTEXTS,
    called: bytes = b"PACSTEWARD",
    calling: bytes = b"HOSTILE",
    version: int = 1,
    application: bytes = item(0x10, APPLICATION_CONTEXT.encode()),
    user: bytes = USER_INFORMATION,
) -> bytes:
    """Return an A-ASSOCIATE-RQ."""
    head = struct.pack(">HH", version, 0) + called.ljust(16)[:16] + calling.ljust(16)[:16]
    return pdu(ASSOCIATE_RQ, head + bytes(32) + application + contexts + user)


def length_fields(request: bytes) -> list[tuple[int, int]]:
    """Return place and size of every length field of an A-ASSOCIATE-RQ."""
    found = [(2, 4)]

    def walk(at: int, end: int) -> None:
        while at + 4 <= end:
            found.append((at + 2, 2))
            kind, length = request[at], int.from_bytes(request[at + 2 : at + 4], "big")
            if kind in (0x20, 0x50):
                walk(at + (8 if kind == 0x20 else 4), at + 4 + length)
            at += 4 + length

    walk(74, len(request))
    return found


def pdv(number: int, control: int, data: bytes, length: int | None = None) -> bytes:
    """Return a presentation data value item."""
    return struct.pack(">IBB", len(data) + 2 if length is None else length, number, control) + data


def p_data(number: int, data: bytes, *, is_command: bool, is_last: bool = True) -> bytes:
    """Return a P-DATA-TF with one fragment."""
    return pdu(P_DATA, pdv(number, int(is_command) | int(is_last) << 1, data))


def element(tag: int, value: int | str | bytes, *, group: int = 0) -> bytes:
    """Return a command element: numbers as US, texts as UI."""
    if isinstance(value, int):
        value = struct.pack("<H", value)
    elif isinstance(value, str):
        value = value.encode("latin-1")
        value += b"\0" * (len(value) % 2)
    return struct.pack("<HHI", group, tag, len(value)) + value


def command(elements: Mapping[int, int | str | bytes]) -> bytes:
    """Return a command set with a right group length."""
    body = b"".join(element(tag, elements[tag]) for tag in sorted(elements))
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


def request(
    field_: int,
    sop_class: str = VERIFICATION,
    *,
    has_data: bool = False,
    without: Sequence[int] = (),
    **more: int | str | bytes,
) -> dict[int, int | str | bytes]:
    """Return the elements of a request; `more` are elements by ``_0800`` and the like."""
    elements: dict[int, int | str | bytes] = {
        0x0002: sop_class,
        0x0100: field_,
        0x0110: 1,
        0x0800: 0x0000 if has_data else 0x0101,
    }
    elements.update({int(name[1:], 16): value for name, value in more.items()})
    return {tag: value for tag, value in elements.items() if tag not in without}


C_ECHO = p_data(ECHO, command(request(0x30)), is_command=True)


def is_whole(data: bytes) -> bool:
    """Whether a door can answer: all PDUs are complete, or one is longer than it may be."""
    at = 0
    while at + 6 <= len(data):
        length = int.from_bytes(data[at + 2 : at + 6], "big")
        if length > PDU_READ_MAX * 2:
            return True
        at += 6 + length
    return 0 < at == len(data)


@dataclass
class Line:
    """A connection to the DIMSE door."""

    port: int
    socket: socket.socket = field(init=False)

    def __post_init__(self) -> None:
        self.socket = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_error: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send; that the other side has gone already shows when the answer is read."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return

    def no_more(self) -> None:
        """Say that nothing follows."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def receive(self) -> tuple[int, bytes] | None:
        """Return the next PDU, None when the connection is closed.

        Raises
        ------
        TimeoutError
            Neither came in time.
        """
        head = self._exactly(6)
        if head is None:
            return None
        body = self._exactly(int.from_bytes(head[2:6], "big"))
        return None if body is None else (head[0], body)

    def _exactly(self, size: int) -> bytes | None:
        data = b""
        while len(data) < size:
            try:
                piece = self.socket.recv(size - len(data))
            except ConnectionResetError:
                return None
            if not piece:
                return None
            data += piece
        return data

    def associate(self, asking: bytes = b"") -> bytes:
        """Open an association; return the body of the A-ASSOCIATE-AC."""
        self.send(asking or associate_rq())
        answer = self.receive()
        assert answer is not None
        assert answer[0] == ASSOCIATE_AC, answer
        return answer[1]

    def response(self) -> dict[int, bytes] | None:
        """Return the next command set as raw values by element number; None when it was cut."""
        collected = b""
        while True:
            answer = self.receive()
            if answer is None or answer[0] in (ABORT, RELEASE_RP):
                return None
            assert answer[0] == P_DATA, answer
            control, data = answer[1][5], answer[1][6:]
            if not control & 1:
                continue
            collected += data
            if control & 2:
                return _parse(collected)

    def store(
        self, number: int, sop_class: str, sop_instance: str, data: bytes, *, piece: int = 60_000
    ) -> int | None:
        """Send an object; return the status, None when the association was cut."""
        asked = request(0x01, sop_class, has_data=True, _1000=sop_instance, _0700=0)
        sent = [p_data(number, command(asked), is_command=True)]
        for at in range(0, max(len(data), 1), piece):
            sent.append(
                p_data(
                    number,
                    data[at : at + piece],
                    is_command=False,
                    is_last=at + piece >= len(data),
                )
            )
        self.send(b"".join(sent))
        answer = self.response()
        return None if answer is None else int.from_bytes(answer[0x0900], "little")

    def echo(self) -> bool:
        """Ask whether the door still answers."""
        self.send(C_ECHO)
        answer = self.response()
        return answer is not None and answer[0x0900] == b"\0\0"


def _parse(data: bytes) -> dict[int, bytes]:
    values, at = {}, 0
    while at < len(data):
        _group, tag, length = struct.unpack_from("<HHI", data, at)
        values[tag] = data[at + 8 : at + 8 + length]
        at += 8 + length
    return values


def explicit(tag: int, vr: str, text: str) -> bytes:
    """Return a short explicit little endian element of a data set."""
    value = text.encode("latin-1")
    value += (b"\0" if vr == "UI" else b" ") * (len(value) % 2)
    head = struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), len(value))
    return head + value
