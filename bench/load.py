"""A C-STORE load client that is cheaper than any server: PDUs are encoded before the clock starts.

It stands outside the product on purpose: what measures must not share the code that is measured.

References
----------
PS3.8 9.3 — PDU layouts; PS3.7 9.3.1 — C-STORE-RQ and -RSP; Annex E — command elements.
"""

from __future__ import annotations

import multiprocessing
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench.objects import EXPLICIT_LITTLE, Encoded

APPLICATION_CONTEXT = b"1.2.840.10008.3.1.1.1"
MAX_PDU_BYTES = 131_072


@dataclass(frozen=True, slots=True)
class Load:
    """How a round went."""

    seconds: float
    instances: int
    size_bytes: int
    errors: int
    latency_p50_ms: float
    latency_p99_ms: float

    @property
    def rate(self) -> float:
        """Return instances per second."""
        return self.instances / self.seconds


def store(port: int, called: str, objects: Sequence[Encoded], associations: int) -> Load:
    """Send `objects` over so many simultaneous associations, a process each."""
    context = multiprocessing.get_context("fork")
    ready, go = context.Barrier(associations + 1), context.Event()
    results: multiprocessing.Queue = context.Queue()
    shares = [objects[start::associations] for start in range(associations)]
    workers = [
        context.Process(target=_send, args=(port, called, share, ready, go, results), daemon=True)
        for share in shares
    ]
    for worker in workers:
        worker.start()
    ready.wait(timeout=120)
    began = time.perf_counter()
    go.set()
    rows = [results.get(timeout=600) for _ in workers]
    seconds = max(row[0] for row in rows) - began
    for worker in workers:
        worker.join(timeout=30)
    latencies = sorted(latency for row in rows for latency in row[2])
    return Load(
        seconds=seconds,
        instances=len(objects),
        size_bytes=sum(len(one.data_set) for one in objects),
        errors=sum(row[1] for row in rows),
        latency_p50_ms=latencies[len(latencies) // 2] * 1000,
        latency_p99_ms=latencies[int(len(latencies) * 0.99)] * 1000,
    )


def _send(port, called, objects, ready, go, results) -> None:  # type: ignore[no-untyped-def]
    connection, peer_max = _associate(port, called, sorted({one.sop_class_uid for one in objects}))
    classes = sorted({one.sop_class_uid for one in objects})
    messages = [
        _message(one, number, 1 + 2 * classes.index(one.sop_class_uid), peer_max)
        for number, one in enumerate(objects)
    ]
    ready.wait(timeout=120)
    go.wait(timeout=120)
    errors, latencies = 0, []
    for message in messages:
        began = time.perf_counter()
        connection.sendall(message)
        errors += _status(connection) != 0
        latencies.append(time.perf_counter() - began)
    ended = time.perf_counter()
    connection.sendall(struct.pack(">BBII", 5, 0, 4, 0))
    connection.close()
    results.put((ended, errors, latencies))


def _associate(port: int, called: str, classes: Sequence[str]) -> tuple[socket.socket, int]:
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    contexts = b"".join(
        _item(
            0x20,
            bytes((1 + 2 * index, 0, 0, 0))
            + _item(0x30, uid.encode())
            + _item(0x40, EXPLICIT_LITTLE.encode()),
        )
        for index, uid in enumerate(classes)
    )
    user = (
        _item(0x51, struct.pack(">I", MAX_PDU_BYTES)) + _item(0x52, b"2.25.1") + _item(0x55, b"B")
    )
    body = (
        struct.pack(">HH", 1, 0)
        + called.ljust(16).encode()
        + b"BENCH".ljust(16)
        + bytes(32)
        + _item(0x10, APPLICATION_CONTEXT)
        + contexts
        + _item(0x50, user)
    )
    connection.sendall(struct.pack(">BBI", 1, 0, len(body)) + body)
    kind, answer = _pdu(connection)
    if kind != 2:
        raise RuntimeError(f"The association was not accepted (PDU type {kind}).")
    return connection, min(_peer_max(answer) or MAX_PDU_BYTES, MAX_PDU_BYTES)


def _item(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(body)) + body


def _peer_max(answer: bytes) -> int:
    position = answer.find(b"\x51\x00\x00\x04", 68)
    return int(struct.unpack_from(">I", answer, position + 4)[0]) if position > 0 else 16_384


def _message(one: Encoded, number: int, context_id: int, peer_max: int) -> bytes:
    command = b"".join(
        (
            _command_element(0x0002, _uid(one.sop_class_uid)),
            _command_element(0x0100, struct.pack("<H", 0x0001)),
            _command_element(0x0110, struct.pack("<H", number % 65_535 + 1)),
            _command_element(0x0700, struct.pack("<H", 0)),
            _command_element(0x0800, struct.pack("<H", 0x0000)),
            _command_element(0x1000, _uid(one.sop_instance_uid)),
        )
    )
    command = _command_element(0x0000, struct.pack("<I", len(command))) + command
    pieces = [_p_data(context_id, 0x03, command)]
    room = peer_max - 6
    for start in range(0, len(one.data_set), room):
        is_last = start + room >= len(one.data_set)
        pieces.append(
            _p_data(context_id, 0x02 if is_last else 0, one.data_set[start : start + room])
        )
    return b"".join(pieces)


def _command_element(element: int, value: bytes) -> bytes:
    return struct.pack("<HHI", 0, element, len(value)) + value


def _uid(uid: str) -> bytes:
    return uid.encode() + b"\0" * (len(uid) % 2)


def _p_data(context_id: int, control: int, piece: bytes) -> bytes:
    size = len(piece)
    return struct.pack(">BBIIBB", 4, 0, size + 6, size + 2, context_id, control) + piece


def _status(connection: socket.socket) -> int:
    """Read responses until one whole command set is there; return its status."""
    command = b""
    while True:
        kind, body = _pdu(connection)
        if kind != 4:
            raise RuntimeError(f"The server ended the association (PDU type {kind}).")
        command += body[6:]
        if body[5] & 2:
            break
    position = 0
    while position + 8 <= len(command):
        group, element, size = struct.unpack_from("<HHI", command, position)
        if (group, element) == (0x0000, 0x0900):
            return int(struct.unpack_from("<H", command, position + 8)[0])
        position += 8 + size
    raise RuntimeError("The server answered without a status.")


def _pdu(connection: socket.socket) -> tuple[int, bytes]:
    head = _exactly(connection, 6)
    return head[0], _exactly(connection, struct.unpack(">I", head[2:])[0])


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        # Some servers answer in two small writes with Nagle on; a late ACK would cost 40 ms.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        piece = connection.recv(size - len(data))
        if not piece:
            raise RuntimeError("The server closed the connection.")
        data += piece
    return data
