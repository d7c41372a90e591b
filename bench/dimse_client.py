"""A DIMSE client that is cheaper than any server: what it sends is encoded before the clock starts.

It stands outside the product on purpose: what measures must not share the code that is measured.
It decodes no data set; of an answer it reads the command set alone, and counts the bytes of the
rest in one large buffer.

References
----------
PS3.8 9.3 — PDU layouts; PS3.7 9.3 — messages; Annex E — command elements.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

APPLICATION_CONTEXT: Final = b"1.2.840.10008.3.1.1.1"
IMPLICIT_LITTLE: Final = "1.2.840.10008.1.2"
EXPLICIT_LITTLE: Final = "1.2.840.10008.1.2.1"

FIND_STUDY: Final = "1.2.840.10008.5.1.4.1.2.2.1"
MOVE_STUDY: Final = "1.2.840.10008.5.1.4.1.2.2.2"
GET_STUDY: Final = "1.2.840.10008.5.1.4.1.2.2.3"

STUDY_UID, SERIES_UID, INSTANCE_UID = 0x0020000D, 0x0020000E, 0x00080018
UID_TAGS: Final = frozenset({STUDY_UID, SERIES_UID, INSTANCE_UID})

MAX_PDU_BYTES: Final = 131_072
BUFFER_BYTES: Final = 4 << 20
TIMEOUT_S: Final = 120.0

C_STORE, C_GET, C_FIND, C_MOVE = 0x0001, 0x0010, 0x0020, 0x0021
IS_RESPONSE: Final = 0x8000
NO_DATA_SET: Final = 0x0101
PENDING: Final = (0xFF00, 0xFF01)


@dataclass(frozen=True, slots=True)
class Message:
    """What came from the peer: its command set, and how long the data set was.

    Parameters
    ----------
    data_set
        Empty unless the reader keeps them.
    """

    context_id: int
    command: Mapping[int, bytes]
    size_bytes: int
    data_set: bytes = b""

    def number(self, element: int) -> int:
        """Return a command element of two bytes; 0 when it is not there."""
        value = self.command.get(element, b"\0\0")
        return int(struct.unpack_from("<H", value)[0])

    @property
    def status(self) -> int:
        """Return the status (0000,0900)."""
        return self.number(0x0900)

    @property
    def is_pending(self) -> bool:
        """Whether more answers follow."""
        return self.status in PENDING


class Wire:
    """Whole PDUs and messages out of one connection and one large buffer."""

    def __init__(self, connection: socket.socket, *, keep: bool = False) -> None:
        connection.settimeout(TIMEOUT_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connection = connection
        self._keep = keep
        self._buffer = bytearray(BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._begin = self._end = 0

    def send(self, data: bytes | bytearray) -> None:
        """Send everything."""
        self.connection.sendall(data)

    def pdu(self) -> tuple[int, memoryview]:
        """Return the type and the body of the next PDU; the body is good until the next call."""
        self._need(6)
        kind, _, size = struct.unpack_from(">BBI", self._buffer, self._begin)
        self._need(6 + size)
        body = self._view[self._begin + 6 : self._begin + 6 + size]
        self._begin += 6 + size
        return kind, body

    def message(self) -> Message:
        """Read PDUs until one whole message is there.

        Raises
        ------
        ConnectionError
            The peer released, aborted or closed.
        """
        command = bytearray()
        kept: list[bytes] = []
        elements: dict[int, bytes] = {}
        size_bytes = 0
        while True:
            kind, body = self.pdu()
            if kind != 4:
                raise ConnectionError(f"The peer ended the association (PDU type {kind}).")
            position = 0
            while position < len(body):
                length, context_id, control = struct.unpack_from(">IBB", body, position)
                if control & 1:
                    command += body[position + 6 : position + 4 + length]
                else:
                    size_bytes += length - 2
                    if self._keep:
                        kept.append(bytes(body[position + 6 : position + 4 + length]))
                position += 4 + length
                if control & 2:
                    if control & 1:
                        elements = _elements(command)
                    if not control & 1 or _us(elements, 0x0800) == NO_DATA_SET:
                        return Message(context_id, elements, size_bytes, b"".join(kept))

    def release(self) -> None:
        """Ask for release and close, whatever the peer says."""
        try:
            self.send(struct.pack(">BBII", 5, 0, 4, 0))
            self.connection.settimeout(5)
            self.connection.recv(64)
        except OSError:
            pass
        self.connection.close()

    def _need(self, size: int) -> None:
        """Have `size` bytes in the buffer from its beginning mark on."""
        if self._end - self._begin >= size:
            return
        if self._begin == self._end or self._begin + size > len(self._buffer):
            rest = self._end - self._begin
            self._view[:rest] = self._view[self._begin : self._end]
            self._begin, self._end = 0, rest
        while self._end - self._begin < size:
            # Some servers answer in two small writes with Nagle on; a late ACK would cost 40 ms.
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            received = self.connection.recv_into(self._view[self._end :])
            if not received:
                raise ConnectionError("The peer closed the connection.")
            self._end += received


class Association(Wire):
    """An association that we asked for.

    Parameters
    ----------
    contexts
        Abstract syntax and transfer syntaxes by context ID.
    roles
        SOP classes of which we want to be the provider (C-GET).

    Raises
    ------
    ConnectionError
        It was not accepted, or not with each context.
    """

    def __init__(
        self,
        port: int,
        called: str,
        contexts: Mapping[int, tuple[str, Sequence[str]]],
        *,
        roles: Sequence[str] = (),
        keep: bool = False,
    ) -> None:
        super().__init__(socket.create_connection(("127.0.0.1", port), TIMEOUT_S), keep=keep)
        self.send(_associate_request(called, contexts, roles))
        kind, body = self.pdu()
        if kind != 2:
            raise ConnectionError(f"The association was not accepted (PDU type {kind}).")
        accepted, peer_max = _read_acceptance(bytes(body))
        if missing := set(contexts) - accepted:
            raise ConnectionError(f"Contexts {sorted(missing)} were not accepted.")
        self.peer_max = min(peer_max or MAX_PDU_BYTES, MAX_PDU_BYTES)

    def encode(
        self, context_id: int, elements: Mapping[int, bytes | int], data_set: bytes = b""
    ) -> bytes:
        """Return a message as PDUs of the size that the peer takes."""
        return encode(context_id, elements, data_set, self.peer_max)


def encode(
    context_id: int,
    elements: Mapping[int, bytes | int],
    data_set: bytes = b"",
    peer_max: int = 16_384,
) -> bytes:
    """Return a message as PDUs.

    Parameters
    ----------
    elements
        The command set by element of group 0; texts as bytes, numbers of two bytes as such.
    """
    head = {**elements, 0x0800: 1 if data_set else NO_DATA_SET}
    body = b"".join(_element(number, value) for number, value in sorted(head.items()))
    command = _element(0x0000, struct.pack("<I", len(body))) + body
    pieces = [_p_data(context_id, 0x03, command)]
    room = peer_max - 6
    for start in range(0, len(data_set), room):
        last = 0x02 if start + room >= len(data_set) else 0
        pieces.append(_p_data(context_id, last, data_set[start : start + room]))
    return b"".join(pieces)


def store_answer(message: Message) -> bytes:
    """Return Success for a C-STORE request that we received."""
    return encode(
        message.context_id,
        {
            0x0002: message.command[0x0002],
            0x0100: C_STORE | IS_RESPONSE,
            0x0120: message.number(0x0110),
            0x0900: 0,
            0x1000: message.command[0x1000],
        },
    )


def accept_all(wire: Wire) -> None:
    """Accept an association with each context, in Explicit VR Little Endian where offered."""
    kind, body = wire.pdu()
    if kind != 1:
        raise ConnectionError(f"The peer did not ask for an association (PDU type {kind}).")
    request = bytes(body)
    answers = b""
    for item, start, end in _items(request, 68, len(request)):
        if item != 0x20:
            continue
        offered = [
            request[begin:stop].rstrip(b"\0")
            for kind_of, begin, stop in _items(request, start + 4, end)
            if kind_of == 0x40
        ]
        wanted = EXPLICIT_LITTLE.encode()
        chosen = wanted if wanted in offered else offered[0]
        answers += _item(0x21, bytes((request[start], 0, 0, 0)) + _item(0x40, chosen))
    body_out = request[:68] + _item(0x10, APPLICATION_CONTEXT) + answers + _user_information()
    wire.send(struct.pack(">BBI", 2, 0, len(body_out)) + body_out)


def identifier(values: Mapping[int, str]) -> bytes:
    """Return an identifier in Implicit VR Little Endian, values by tag."""
    pieces = []
    for tag, value in sorted(values.items()):
        raw = value.encode("latin-1")
        if len(raw) % 2:
            raw += b"\0" if tag in UID_TAGS else b" "
        pieces.append(struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(raw)) + raw)
    return b"".join(pieces)


def uid(value: str) -> bytes:
    """Return a UID as its element holds it."""
    return value.encode() + b"\0" * (len(value) % 2)


# --- layouts -------------------------------------------------------------------------------------


def _associate_request(
    called: str, contexts: Mapping[int, tuple[str, Sequence[str]]], roles: Sequence[str]
) -> bytes:
    offered = b"".join(
        _item(
            0x20,
            bytes((context_id, 0, 0, 0))
            + _item(0x30, abstract.encode())
            + b"".join(_item(0x40, syntax.encode()) for syntax in syntaxes),
        )
        for context_id, (abstract, syntaxes) in contexts.items()
    )
    body = (
        struct.pack(">HH", 1, 0)
        + called.ljust(16).encode()
        + b"BENCH".ljust(16)
        + bytes(32)
        + _item(0x10, APPLICATION_CONTEXT)
        + offered
        + _user_information(roles)
    )
    return struct.pack(">BBI", 1, 0, len(body)) + body


def _user_information(roles: Sequence[str] = ()) -> bytes:
    selections = b"".join(
        _item(0x54, struct.pack(">H", len(role)) + role.encode() + b"\0\1") for role in roles
    )
    return _item(
        0x50,
        _item(0x51, struct.pack(">I", MAX_PDU_BYTES))
        + _item(0x52, b"2.25.1")
        + selections
        + _item(0x55, b"BENCH"),
    )


def _item(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(body)) + body


def _items(data: bytes, start: int, end: int) -> list[tuple[int, int, int]]:
    """Return type, begin and end of each item in a part of `data`."""
    found = []
    while start + 4 <= end:
        kind, _, size = struct.unpack_from(">BBH", data, start)
        found.append((kind, start + 4, start + 4 + size))
        start += 4 + size
    return found


def _read_acceptance(body: bytes) -> tuple[set[int], int]:
    accepted, peer_max = set(), 16_384
    for kind, start, end in _items(body, 68, len(body)):
        if kind == 0x21 and body[start + 2] == 0:
            accepted.add(body[start])
        elif kind == 0x50:
            for inner, begin, _ in _items(body, start, end):
                if inner == 0x51:
                    peer_max = int(struct.unpack_from(">I", body, begin)[0])
    return accepted, peer_max


def _element(number: int, value: bytes | int) -> bytes:
    raw = struct.pack("<H", value) if isinstance(value, int) else value
    raw += b"\0" * (len(raw) % 2)
    return struct.pack("<HHI", 0, number, len(raw)) + raw


def _elements(command: bytes | bytearray) -> dict[int, bytes]:
    found, position = {}, 0
    while position + 8 <= len(command):
        _, number, size = struct.unpack_from("<HHI", command, position)
        found[number] = bytes(command[position + 8 : position + 8 + size])
        position += 8 + size
    return found


def _us(elements: Mapping[int, bytes], number: int) -> int:
    return int(struct.unpack("<H", elements[number])[0]) if number in elements else 0


def _p_data(context_id: int, control: int, piece: bytes) -> bytes:
    size = len(piece)
    return struct.pack(">BBIIBB", 4, 0, size + 6, size + 2, context_id, control) + piece
