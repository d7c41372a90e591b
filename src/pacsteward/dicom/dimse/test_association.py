"""What an association does with its memory when its peer stops making sense."""

from __future__ import annotations

import asyncio
import struct
from typing import Any, cast

from pacsteward.dicom.dimse.association import Association
from pacsteward.dicom.dimse.limits import Limits
from pacsteward.dicom.dimse.machine import State
from pacsteward.dicom.dimse.receive_buffer import ChunkPool

CHUNK = 64 * 1024


class Wire:
    """A transport that takes everything, and reads on until the peer closes."""

    def __init__(self) -> None:
        self.sent = b""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes) -> None:
        self.sent += data


class User:
    """Whom the association serves: nobody who does anything."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


def p_data(data: bytes, size: int) -> bytes:
    return b"".join(
        struct.pack(">BBIIBB", 4, 0, len(piece) + 6, len(piece) + 2, 1, 0) + piece
        for piece in (data[at : at + size] for at in range(0, len(data), size))
    )


def feed(association: Association, data: bytes) -> None:
    view = memoryview(data)
    while view:
        room = association.get_buffer(-1)
        count = min(len(room), len(view))
        room[:count] = view[:count]
        association.buffer_updated(count)
        view = view[count:]


def test_an_object_in_flight_is_not_overwritten_by_what_comes_after_nonsense() -> None:
    """Its bytes may be on their way to the disk, and others' records behind them."""
    held: list[memoryview] = []

    async def receive() -> None:
        pool = ChunkPool(CHUNK)
        association = Association(cast(Any, User()), is_requestor=False, limits=Limits(), pool=pool)
        wire = Wire()
        association.connection_made(cast(asyncio.Transport, wire))
        association._machine.state = State.ESTABLISHED
        association._established()
        association.listen(lambda _context, _control, fragment: held.append(fragment))
        feed(association, p_data(data, 10_000))
        assert b"".join(held) == data
        feed(association, b"\x63\0\0\0\0\1" + b"Z" * 3 * CHUNK)
        assert wire.sent[:1] == b"\x07"
        association.connection_lost(None)
        # Nor by the next association.
        buffers = [pool.take() for _ in range(4)]
        for chunk in buffers:
            memoryview(chunk.memory)[:] = b"Y" * CHUNK

    data = bytes(range(256)) * 120
    asyncio.run(receive())
    assert b"".join(held) == data
