"""Hands instances to the keeper through shared memory, from the event loop of another process.

A `Courier` is one connection and one arena. Any number of requests may use it at a time: each puts
its bytes on a `Shelf` of its own and sends a `Parcel` when it is whole. When the connection breaks,
the arena goes with it, since nobody knows who still reads there; what was under way is raised as
`Undelivered`, and may be sent once more by another way: storing is idempotent.

References
----------
`sharing.py` for what is said, `arena.py` for who may write where.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, cast

from pacsteward.archive.arena import Arena, Parcel, Shelf
from pacsteward.archive.client import TIMEOUT_S, answer_on, connected
from pacsteward.archive.messages import HEAD, error_of, result_of
from pacsteward.archive.model import Origin, StoreResult
from pacsteward.base.errors import Unavailable
from pacsteward.dicom.part10 import FileMeta

GREETING_S: Final = 5.0
AGAIN_AFTER_S: Final = 1.0
"""How long nothing is tried after a connection failed."""


class Undelivered(Exception):
    """The connection broke before the answer came; the instance may be stored, or not."""


class Courier(asyncio.Protocol):
    """One connection to the keeper, with the arena that it knows.

    Parameters
    ----------
    arena
        Which the keeper has mapped.
    """

    def __init__(self, arena: Arena) -> None:
        self.loop = asyncio.get_running_loop()
        self._arena = arena
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._number = 0
        self._waiting: dict[int, tuple[asyncio.Future[Any], Parcel]] = {}

    @property
    def is_open(self) -> bool:
        """Whether parcels can be sent."""
        return not self._arena.is_retired

    def shelf(self) -> Shelf:
        """Give room for the instances of one request."""
        return Shelf(self._arena)

    async def store(
        self, origin: Origin, meta: FileMeta, parcel: Parcel, offset: int
    ) -> StoreResult:
        """Store a whole instance; when this returns, it is safe.

        Parameters
        ----------
        parcel
            Of this courier. It may be released at any time.
        offset
            Where its data set begins.

        Raises
        ------
        Invalid, Exhausted, Unavailable
            The keeper did not take it.
        Undelivered
            The keeper went away.
        """
        if self._transport is None or not self.is_open or parcel.arena is not self._arena:
            raise Undelivered
        text = json.dumps([_origin_text(origin), _fields(meta), parcel.places(offset)]).encode()
        self._number += 1
        answer: asyncio.Future[Any] = self.loop.create_future()
        # Until the answer the memory is the keeper's, whatever becomes of the one who waits.
        parcel.hold()
        self._waiting[self._number] = answer, parcel
        self._transport.write(HEAD.pack(len(text), self._number) + text)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                fields = await answer
        except TimeoutError:
            raise Undelivered from None
        if "error" in fields:
            raise error_of(fields["error"])
        return result_of(fields["result"])

    def close(self) -> None:
        """End the connection."""
        self._arena.retire()
        if self._transport is not None and not self.loop.is_closed():
            self._transport.abort()

    # --- what asyncio calls -----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        # Not asserted: uvloop's transports are no subclass of asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell all who wait, and never use this memory again."""
        self._arena.retire()
        self._transport = None
        # Their parcels stay held: a keeper that still runs may be writing them.
        waiting, self._waiting = self._waiting, {}
        for answer, _parcel in waiting.values():
            if not answer.done():
                answer.set_exception(Undelivered())

    def data_received(self, data: bytes) -> None:
        """Give each its answer."""
        self._received += data
        start = 0
        while len(self._received) - start >= HEAD.size:
            text_bytes, number = HEAD.unpack_from(self._received, start)
            end = start + HEAD.size + text_bytes
            if end > len(self._received):
                break
            self._answered(number, json.loads(self._received[start + HEAD.size : end]))
            start = end
        del self._received[:start]

    def _answered(self, number: int, fields: Any) -> None:
        answer, parcel = self._waiting.pop(number)
        parcel.release()
        if not answer.done():
            answer.set_result(fields)


class Couriers:
    """Gives the courier of this process, and another one when it has broken.

    Parameters
    ----------
    run_folder
        ``DIR/run``.
    """

    def __init__(self, run_folder: Path) -> None:
        self._run_folder = run_folder
        self._courier: Courier | None = None
        self._coming: asyncio.Task[Courier | None] | None = None
        self._again_at = 0.0

    async def get(self) -> Courier | None:
        """Return one that is open, or None: there is no keeper that shares memory."""
        courier = self._courier
        loop = asyncio.get_running_loop()
        if courier is not None and courier.is_open and courier.loop is loop:
            return courier
        if time.monotonic() < self._again_at:
            return None
        if self._coming is None or self._coming.get_loop() is not loop or self._coming.done():
            self._coming = loop.create_task(self._open())
        return await asyncio.shield(self._coming)

    async def _open(self) -> Courier | None:
        courier: Courier | None = None
        try:
            arena = Arena()
            try:
                connection = await asyncio.to_thread(_greet, self._run_folder, arena)
            finally:
                arena.close_descriptor()
            _, courier = await asyncio.get_running_loop().create_unix_connection(
                lambda: Courier(arena), sock=connection
            )
        except (OSError, Unavailable):
            self._again_at = time.monotonic() + AGAIN_AFTER_S
        self._courier = courier
        return courier

    def close(self) -> None:
        """End the connection."""
        if self._courier is not None:
            self._courier.close()
            self._courier = None


def _greet(run_folder: Path, arena: Arena) -> socket.socket:
    """Return a connection to a keeper that has mapped the arena."""
    connection = connected(run_folder)
    try:
        connection.settimeout(GREETING_S)
        text = json.dumps({"call": "share"}).encode()
        connection.sendall(HEAD.pack(len(text), 0) + text)
        if answer_on(connection) != {"result": "ready"}:
            raise ConnectionError
        socket.send_fds(connection, [b"\0"], [arena.descriptor])
        if answer_on(connection) != {"result": "shared"}:
            raise ConnectionError
        connection.setblocking(False)
    except BaseException:
        connection.close()
        raise
    return connection


@lru_cache(maxsize=256)
def _origin_text(origin: Origin) -> str:
    return json.dumps(asdict(origin))


def _fields(meta: FileMeta) -> tuple[str, ...]:
    """Return the fields of a `FileMeta` in their order; `astuple` takes ten times as long."""
    return (
        meta.media_storage_sop_class_uid,
        meta.media_storage_sop_instance_uid,
        meta.transfer_syntax_uid,
        meta.implementation_class_uid,
        meta.implementation_version_name,
        meta.source_application_entity_title,
    )
