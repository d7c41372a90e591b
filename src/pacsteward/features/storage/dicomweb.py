"""STOW-RS: instances come in the parts of a request and are safe before it is answered.

Enters: ``multipart/related; type="application/dicom"``, or one instance as ``application/dicom``.
Leaves: the Store Instances Response as DICOM JSON. A part goes to the archive as soon as it is
whole, while the next one arrives; a few at a time, so that they share a sync and memory stays
bounded.

References
----------
PS3.18 10.5 (Store transaction). Instances as metadata with bulk data apart (10.5.1.2, 10.5.2) are
not taken yet; they are answered 415.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from starlette.requests import ClientDisconnect

from pacsteward.archive import Courier, Origin, Shelf
from pacsteward.base.errors import Invalid
from pacsteward.dicom.uids import check_uid
from pacsteward.dicom.web.answers import (
    Request,
    Response,
    service_url,
    single_answer,
    single_form,
    warning,
)
from pacsteward.dicom.web.bodies import check_announced, chunks, not_received
from pacsteward.dicom.web.errors import UnsupportedMediaType
from pacsteward.dicom.web.multipart import PartBegin, PartData, PartEnd, Reader, boundary_of
from pacsteward.dicom.web.negotiation import (
    DICOM,
    DICOM_JSON,
    DICOM_XML,
    MediaType,
    parse_media_type,
)
from pacsteward.feature import House, Route
from pacsteward.features.storage.payload import Payload
from pacsteward.features.storage.settings import StorageSettings
from pacsteward.features.storage.stow import (
    Verdict,
    http_status,
    remarks,
    response_data_set,
    store_instance,
    store_parcel,
)
from pacsteward.web.inflow import Inflow, inflow_of
from pacsteward.web.threads import in_thread

AT_A_TIME: Final = 8
"""Instances of one request that are being stored at once."""


async def store(house: House, request: Request) -> Response:
    """Answer POST /dicom-web/studies and /dicom-web/studies/{study}."""
    form = single_form(request)
    study = request.path_params.get("study", "")
    if study:
        check_uid(study, "StudyInstanceUID")
    verdicts = await _Intake(house, request, study).run()
    if not verdicts:
        raise Invalid(
            "The request holds no instance.",
            why="It has no part of type application/dicom.",
            remedy='Send multipart/related; type="application/dicom" with a part for each.',
        )
    return single_answer(
        request,
        form,
        response_data_set(verdicts, service_url(request)),
        status_code=http_status(verdicts),
        headers=warning(*remarks(verdicts)),
    )


class _Intake:
    """The parts of one request on their way to the archive."""

    def __init__(self, house: House, request: Request, study: str) -> None:
        self._house = house
        self._request = request
        self._study = study
        self._settings = house.settings.of(StorageSettings)
        actor = request.state.actor
        self._origin = Origin(door="stow", actor=actor.name, address=actor.address)
        self._threads = asyncio.Semaphore(AT_A_TIME)
        self._courier: Courier | None = None
        self._shelf: Shelf | None = None
        self._inflow: Inflow | None = None
        self._payload: Payload | None = None
        """The part that is arriving."""
        self._stores: list[asyncio.Task[Verdict]] = []
        self._running = 0
        self._has_room = asyncio.Event()

    async def run(self) -> list[Verdict]:
        """Take all parts; the verdicts come in their order."""
        content_type = parse_media_type(self._request.headers.get("content-type", ""))
        _check_type(content_type)
        _check_encoding(self._request.headers.get("content-encoding", ""))
        self._courier = await self._house.archive.courier()
        if self._courier is not None:
            self._shelf = self._courier.shelf()
        try:
            if content_type.is_multipart:
                await self._parts(content_type)
            else:
                await self._whole()
        finally:
            if self._payload is not None:
                self._payload.close()
            if self._shelf is not None:
                self._shelf.close()
            # Those that are whole are kept, also when the rest of the body is broken: the sender
            # may repeat the request, since storing again what is here changes nothing.
            await asyncio.gather(*self._stores, return_exceptions=True)
        return [task.result() for task in self._stores]

    async def _parts(self, content_type: MediaType) -> None:
        reader = Reader(boundary_of(content_type), max_parts=self._settings.max_parts)

        def take(data: bytes) -> None:
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

    async def _whole(self) -> None:
        payload = self._begin()
        await self._receive(payload.write)
        self._end()

    async def _receive(self, take: Callable[[bytes], None]) -> None:
        """Give all of the body to `take`, no faster than its parts are stored."""
        max_bytes = self._settings.max_request_bytes
        check_announced(self._request, max_bytes=max_bytes)
        self._inflow = inflow_of(self._request)
        if self._inflow is not None:
            try:
                await self._inflow.into(take)
            except ClientDisconnect as error:
                raise not_received() from error
            return
        async for chunk in chunks(self._request, max_bytes=max_bytes):
            take(chunk)
            while self._running >= AT_A_TIME:
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
        self._running += 1
        if self._running >= AT_A_TIME and self._inflow is not None:
            self._inflow.pause()
        self._stores.append(asyncio.create_task(self._store(payload)))

    def _stored(self) -> None:
        self._running -= 1
        if self._running < AT_A_TIME:
            self._has_room.set()
            if self._inflow is not None:
                self._inflow.resume()

    async def _store(self, payload: Payload) -> Verdict:
        try:
            verdict: Verdict | None = None
            if self._courier is not None and payload.parcel is not None:
                verdict = await store_parcel(
                    self._courier,
                    self._settings,
                    self._origin,
                    payload.parcel,
                    study_instance_uid=self._study,
                )
            if verdict is None:
                async with self._threads:
                    verdict = await in_thread(self._store_now, payload)
            return verdict
        finally:
            payload.close()
            self._stored()

    def _store_now(self, payload: Payload) -> Verdict:
        return store_instance(
            self._house.archive,
            self._settings,
            self._origin,
            payload.value(),
            study_instance_uid=self._study,
        )


def _check_type(content_type: MediaType) -> None:
    # Some senders leave the type parameter out, although RFC 2387 requires it.
    if content_type.part in (DICOM, "*/*"):
        return
    if content_type.part in (DICOM_JSON, DICOM_XML):
        raise UnsupportedMediaType(
            "The request was not taken.",
            why="Metadata with separate bulk data are not accepted yet.",
            remedy='Send whole instances: multipart/related; type="application/dicom".',
        )
    raise UnsupportedMediaType(
        "The request was not taken.",
        why="Its Content-Type is none that carries DICOM instances.",
        remedy='Send multipart/related; type="application/dicom", or application/dicom.',
    )


def _check_encoding(encoding: str) -> None:
    if encoding.strip().lower() not in ("", "identity"):
        raise UnsupportedMediaType(
            "The request was not taken.",
            why="Its body is compressed as a whole (Content-Encoding).",
            remedy="Send it as it is; transfer syntaxes compress the objects themselves.",
        )


def _check_part(part: PartBegin) -> None:
    # C65: a transfer-syntax parameter is tolerated; what counts is the instance's own file meta.
    content_type = part.headers.get("content-type", DICOM)
    if content_type != DICOM and parse_media_type(content_type).name != DICOM:
        raise UnsupportedMediaType(
            "The request was not taken.",
            why="One of its parts is not of type application/dicom.",
            remedy="Send whole instances, each as a part of type application/dicom.",
        )


ROUTES = (
    Route("POST", "/dicom-web/studies", store, "studies.store"),
    Route("POST", "/dicom-web/studies/{study}", store, "studies.store"),
)
