"""The instances of one STOW-RS request on their way to the archive.

They lie in memory that is shared with the keeper as soon as they are received. Those that are whole
are handed to it several at a time: each hand-over wakes a process, and costs as much as a small
instance. What cannot go that way goes through a thread, each by itself.

References
----------
PS3.18 10.5 (Store transaction); RFC 2387 (multipart/related).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from pacsteward.archive import Courier, Origin, Parcel, Shelf
from pacsteward.dicom.web.answers import Request
from pacsteward.dicom.web.bodies import check_announced, chunks, received
from pacsteward.dicom.web.errors import UnsupportedMediaType
from pacsteward.dicom.web.multipart import PartBegin, PartData, PartEnd, Reader, boundary_of
from pacsteward.dicom.web.negotiation import DICOM, MediaType, parse_media_type
from pacsteward.feature import House
from pacsteward.features.storage.payload import Payload
from pacsteward.features.storage.settings import StorageSettings
from pacsteward.features.storage.stow import Verdict, store_instance, store_parcels
from pacsteward.web.inflow import Inflow, inflow_of
from pacsteward.web.threads import in_thread

TOGETHER: Final = 32
TOGETHER_BYTES: Final = 2 << 20
TOGETHER_S: Final = 0.05
"""Whole instances that are handed over before the rest of the request is here, and how long the
first of them waits for the others."""

AHEAD_MAX: Final = 64
AHEAD_BYTES_MAX: Final = 8 << 20
"""Whole instances that are not stored yet; with more, no more of the request is received."""

THREADS: Final = 8
"""Instances of one request that are stored in threads at once."""


@dataclass(slots=True)
class _Whole:
    """An instance that is here."""

    payload: Payload
    size_bytes: int
    verdict: Verdict | None = None


class Intake:
    """Takes the body of a request, and has what it brings stored.

    Parameters
    ----------
    study
        The one that all instances must belong to; empty for any.
    """

    def __init__(self, house: House, request: Request, study: str) -> None:
        self._house = house
        self._request = request
        self._study = study
        self._settings = house.settings.of(StorageSettings)
        actor = request.state.actor
        self._origin = Origin(door="stow", actor=actor.name, address=actor.address)
        self._courier: Courier | None = None
        self._shelf: Shelf | None = None
        self._inflow: Inflow | None = None
        self._payload: Payload | None = None
        """The part that is arriving."""
        self._all: list[_Whole] = []
        self._waiting: list[_Whole] = []
        """Not handed over yet."""
        self._waiting_bytes = 0
        self._alarm: asyncio.TimerHandle | None = None
        """When they are handed over, if nothing else has them go before."""
        self._ahead = self._ahead_bytes = 0
        self._deliveries: list[asyncio.Task[None]] = []
        self._threads = asyncio.Semaphore(THREADS)
        self._has_room = asyncio.Event()

    async def run(self, content_type: MediaType) -> list[Verdict]:
        """Take all parts; the verdicts come in their order."""
        self._courier = await self._house.archive.courier()
        if self._courier is not None:
            self._shelf = self._courier.shelf()
        try:
            if content_type.is_multipart:
                await self._parts(content_type)
            else:
                await self._single()
            if self._waiting and not self._deliveries:
                # All of a small request: nothing else is to be done meanwhile.
                await self._store(self._taken())
        finally:
            if self._payload is not None:
                self._payload.close()
            if self._shelf is not None:
                self._shelf.close()
            # Those that are whole are kept, also when the rest of the body is broken: the sender
            # may repeat the request, since storing again what is here changes nothing.
            self._deliver()
            if self._deliveries:
                await asyncio.gather(*self._deliveries, return_exceptions=True)
        for delivery in self._deliveries:
            delivery.result()
        return [one.verdict for one in self._all if one.verdict is not None]

    # --- receiving --------------------------------------------------------------------------

    async def _parts(self, content_type: MediaType) -> None:
        reader = Reader(boundary_of(content_type), max_parts=self._settings.max_parts)

        def take(data: bytes | memoryview) -> None:
            for event in reader.feed(data):
                if isinstance(event, PartData):
                    if self._payload is not None:
                        self._payload.write(event.data)
                elif isinstance(event, PartBegin):
                    _check_part(event)
                    self._begin()
                elif isinstance(event, PartEnd):
                    self._end()

        await self._receive(take)
        reader.close()

    async def _single(self) -> None:
        payload = self._begin()
        await self._receive(payload.write)
        self._end()

    async def _receive(self, take: Callable[[bytes | memoryview], None]) -> None:
        """Give all of the body to `take`, no faster than its parts are stored."""
        max_bytes = self._settings.max_request_bytes
        check_announced(self._request, max_bytes=max_bytes)
        self._inflow = inflow_of(self._request)
        if self._inflow is not None:
            await received(self._inflow, take, self._shelf)
            return
        async for chunk in chunks(self._request, max_bytes=max_bytes):
            take(chunk)
            while self._is_ahead():
                self._has_room.clear()
                await self._has_room.wait()

    def _begin(self) -> Payload:
        self._payload = Payload(
            self._shelf,
            self._house.archive.scratch_folder,
            max_bytes=self._settings.max_request_bytes,
        )
        return self._payload

    def _end(self) -> None:
        payload, self._payload = self._payload, None
        if payload is None:
            return
        one = _Whole(payload, payload.size)
        self._all.append(one)
        self._waiting.append(one)
        self._waiting_bytes += one.size_bytes
        self._ahead += 1
        self._ahead_bytes += one.size_bytes
        if self._is_ahead() and self._inflow is not None:
            self._inflow.pause()
        if len(self._waiting) >= TOGETHER or self._waiting_bytes >= TOGETHER_BYTES:
            self._deliver()
        elif self._alarm is None:
            # Of a slow sender: nothing that is whole waits for what may never come.
            self._alarm = asyncio.get_running_loop().call_later(TOGETHER_S, self._deliver)

    def _is_ahead(self) -> bool:
        return self._ahead >= AHEAD_MAX or self._ahead_bytes >= AHEAD_BYTES_MAX

    # --- storing ----------------------------------------------------------------------------

    def _deliver(self) -> None:
        """Have what is whole stored."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._waiting:
            self._deliveries.append(asyncio.create_task(self._store(self._taken())))

    def _taken(self) -> list[_Whole]:
        group, self._waiting, self._waiting_bytes = self._waiting, [], 0
        return group

    async def _store(self, group: list[_Whole]) -> None:
        try:
            if self._courier is not None:
                await self._store_in_memory(self._courier, group)
            others = [one for one in group if one.verdict is None]
            if others:
                # To the end of all: a thread must not read on what was given back meanwhile.
                ends = [self._store_in_thread(one) for one in others]
                raise_first(await asyncio.gather(*ends, return_exceptions=True))
        finally:
            for one in group:
                one.payload.close()
                self._ahead -= 1
                self._ahead_bytes -= one.size_bytes
            if not self._is_ahead():
                self._has_room.set()
                if self._inflow is not None:
                    self._inflow.resume()

    async def _store_in_memory(self, courier: Courier, group: list[_Whole]) -> None:
        here: list[_Whole] = []
        parcels: list[Parcel] = []
        for one in group:
            if one.payload.parcel is not None:
                here.append(one)
                parcels.append(one.payload.parcel)
        verdicts = await store_parcels(
            courier, self._settings, self._origin, parcels, study_instance_uid=self._study
        )
        for one, verdict in zip(here, verdicts, strict=True):
            one.verdict = verdict

    async def _store_in_thread(self, one: _Whole) -> None:
        async with self._threads:
            one.verdict = await in_thread(self._store_now, one.payload)

    def _store_now(self, payload: Payload) -> Verdict:
        return store_instance(
            self._house.archive,
            self._settings,
            self._origin,
            payload.value(),
            study_instance_uid=self._study,
        )


def raise_first(ends: Iterable[object]) -> None:
    """Raise the first of the exceptions among what things came to."""
    for end in ends:
        if isinstance(end, BaseException):
            raise end


def _check_part(part: PartBegin) -> None:
    # C65: a transfer-syntax parameter is tolerated; what counts is the instance's own file meta.
    content_type = part.headers.get("content-type", DICOM)
    if content_type != DICOM and parse_media_type(content_type).name != DICOM:
        raise UnsupportedMediaType(
            "The request was not taken.",
            why="One of its parts is not of type application/dicom.",
            remedy="Send whole instances, each as a part of type application/dicom.",
        )
