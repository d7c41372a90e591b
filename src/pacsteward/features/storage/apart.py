"""The instances of a STOW-RS request that brings metadata and their bulk data apart.

Nothing can be put together before the last part is here, so all of the request is received first:
in one spool, so that many parts cost no more files or memory than one. Then each instance is
assembled in a spool of its own and stored as if it had come whole. Few large requests are received
at a time, and only while there is room: each may be as large as a request may be, and the disk is
the archive's. A small one lies in memory, and waits for no place on the disk.

The request as a whole is refused where it is not certain what the sender meant: parts of which two
have one name, one that nothing refers to, or that two values share (one part for ten thousand
instances would fill the disk).

References
----------
PS3.18 10.5.1.4 — metadata in the first part, bulk data named by Content-Location.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from pacsteward.archive import Origin, Space
from pacsteward.base.errors import Broken, Exhausted, Invalid, PacstewardError, Unavailable
from pacsteward.dicom.assemble import OCTETS, BulkData, assemble, bulk_data_uris
from pacsteward.dicom.status import PROCESSING_FAILURE
from pacsteward.dicom.uids import check_uid
from pacsteward.dicom.web.answers import Request
from pacsteward.dicom.web.bodies import (
    IN_MEMORY_BYTES,
    Spool,
    announced_bytes,
    check_announced,
    chunks,
    received,
)
from pacsteward.dicom.web.errors import TooLarge
from pacsteward.dicom.web.multipart import PartBegin, PartData, PartEnd, Reader, boundary_of
from pacsteward.dicom.web.negotiation import DICOM_JSON, MediaType, parse_media_type
from pacsteward.feature import House
from pacsteward.features.storage.settings import StorageSettings
from pacsteward.features.storage.statuses import refusal_status
from pacsteward.features.storage.stow import Failed, Verdict, store_instance
from pacsteward.web.inflow import inflow_of
from pacsteward.web.threads import in_thread_of

_log: Final = logging.getLogger(__name__)

METADATA_BYTES_MAX: Final = 4 * 1024 * 1024
SIGNS_MAX: Final = 400_000
"""Brackets, braces and commas of the JSON part, which parsed takes many times as much: a short
number with its comma 400 bytes, once it is a decimal text of a data set."""

_THREADS: Final = ThreadPoolExecutor(2, thread_name_prefix="assemble")
"""Few, since each may hold metadata that are large when parsed."""

_SPOOLS: Final = asyncio.Semaphore(3)
"""Places for requests of this process that lie on the disk, from the first byte until they are
stored. One more than there are threads, so that one is received while two are stored."""

WAIT_S: Final = 30.0
"""How long a request waits for such a place; nothing of it is received meanwhile. Senders that are
slow have theirs for long."""


@dataclass(frozen=True, slots=True)
class _Part:
    """Where one part lies in the spool."""

    content_type: MediaType
    location: str
    start: int
    end: int


async def store_apart(
    house: House, request: Request, content_type: MediaType, study: str
) -> list[Verdict]:
    """Take the whole request and store its instances; the verdicts come in their order.

    Raises
    ------
    Invalid
        It is not certain what belongs together; nothing was stored.
    Exhausted, Unavailable
        It cannot be received now; nothing was stored.
    """
    settings = house.settings.of(StorageSettings)
    actor = request.state.actor
    store = partial(
        store_instance,
        house.archive,
        settings,
        Origin(door="stow", actor=actor.name, address=actor.address),
        study_instance_uid=study,
    )
    new_spool = partial(Spool, house.archive.scratch_folder(), max_bytes=settings.max_request_bytes)
    check_announced(request, max_bytes=settings.max_request_bytes)
    async with _place_for(announced_bytes(request), house):
        with new_spool() as spool:
            parts = await _received(request, content_type, settings, spool)
            return await in_thread_of(
                _THREADS, _store_all, spool, parts, settings.max_parts, new_spool, store
            )


@asynccontextmanager
async def _place_for(announced: int | None, house: House) -> AsyncIterator[None]:
    """Have a place on the disk for a request that may need one.

    Parameters
    ----------
    announced
        How many bytes it is said to have; None where that is not said.
    """
    if announced is not None and announced <= IN_MEMORY_BYTES:
        yield
        return
    try:
        async with asyncio.timeout(WAIT_S):
            await _SPOOLS.acquire()
    except TimeoutError:
        raise _no_place() from None
    try:
        _check_room(house.archive.space(), announced)
        yield
    finally:
        _SPOOLS.release()


def _check_room(room: Space, announced: int | None) -> None:
    """Refuse what would use up the reserve: the request lies there, and its instances once more."""
    if room.is_full or room.free_bytes - room.reserve_bytes < 2 * (announced or 0):
        raise Exhausted(
            "The request was not taken.",
            why=f"The disk of the archive has {room.free_bytes >> 20} MiB free and keeps "
            f"{room.reserve_bytes >> 20} MiB in reserve. Until it is stored, such a request takes "
            "twice its length there.",
            remedy="Free space on it, then send the request again; or send it in several.",
        )


async def _received(
    request: Request, content_type: MediaType, settings: StorageSettings, spool: Spool
) -> list[_Part]:
    """Put all parts into the spool, one behind the other."""
    parts: list[_Part] = []

    def take_part(data: bytes | memoryview) -> None:
        for event in reader.feed(data):
            if isinstance(event, PartData):
                spool.write(bytes(event.data))
            elif isinstance(event, PartBegin):
                parts.append(_begun(event, spool.size))
            elif isinstance(event, PartEnd):
                parts[-1] = replace(parts[-1], end=spool.size)

    def take_all(data: bytes | memoryview) -> None:
        spool.write(bytes(data))

    take = take_all
    if content_type.is_multipart:
        reader = Reader(boundary_of(content_type), max_parts=settings.max_parts)
        take = take_part
    inflow = inflow_of(request)
    if inflow is not None:
        await received(inflow, take)
    else:
        async for chunk in chunks(request, max_bytes=settings.max_request_bytes):
            take(chunk)
    if not content_type.is_multipart:
        return [_Part(content_type, "", 0, spool.size)]
    reader.close()
    return parts


def _begun(event: PartBegin, start: int) -> _Part:
    content_type = parse_media_type(event.headers.get("content-type", OCTETS))
    return _Part(content_type, event.headers.get("content-location", ""), start, start)


def _store_all(
    spool: Spool,
    parts: Sequence[_Part],
    max_instances: int,
    new_spool: Callable[[], Spool],
    store: Callable[[memoryview], Verdict],
) -> list[Verdict]:
    whole = spool.value()
    models = _metadata(parts, whole, max_instances)
    bulk = _bulk(parts[1:], whole)
    _check_references(models, bulk)
    return [_stored(model, bulk, new_spool, store) for model in models]


def _stored(
    model: Any,
    bulk: Mapping[str, BulkData],
    new_spool: Callable[[], Spool],
    store: Callable[[memoryview], Verdict],
) -> Verdict:
    """Put one instance together and store it; whatever befalls it, the others are not touched."""
    try:
        with new_spool() as assembled:
            for piece in assemble(model, partial(_found, bulk)):
                assembled.write(piece)
            return store(assembled.value())
    except PacstewardError as error:
        return Failed(refusal_status(error), error, *_named(model))
    except Exception:  # noqa: BLE001
        # Those before it are safe, and an answer of 500 would not say so.
        _log.exception("An instance whose metadata and bulk data came apart was not stored.")
        return Failed(PROCESSING_FAILURE, _at_fault(), *_named(model))


def _metadata(parts: Sequence[_Part], whole: memoryview, max_instances: int) -> list[Any]:
    """Return what the first part says of each instance."""
    if not parts or parts[0].content_type.name != DICOM_JSON:
        raise _unclear("Its first part is not of type application/dicom+json.")
    if parts[0].end - parts[0].start > METADATA_BYTES_MAX:
        raise _too_much(f"Its metadata may have {METADATA_BYTES_MAX} bytes.")
    text = bytes(whole[parts[0].start : parts[0].end])
    if sum(map(text.count, (b"[", b"{", b","))) > SIGNS_MAX:
        raise _too_much(f"Its metadata may have {SIGNS_MAX} brackets, braces and commas.")
    try:
        models = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _unclear("Its metadata are no JSON.") from error
    if not isinstance(models, list) or not models:
        raise _unclear("Its metadata are no array of data sets.")
    if len(models) > max_instances:
        raise _too_much(f"It may bring {max_instances} instances.")
    return models


def _bulk(parts: Sequence[_Part], whole: memoryview) -> dict[str, BulkData]:
    """Return the other parts by their names."""
    bulk: dict[str, BulkData] = {}
    for part in parts:
        if not part.location or part.location in bulk:
            raise _unclear("One of its parts has no Content-Location, or that of another one.")
        kind = part.content_type
        bulk[part.location] = BulkData(
            kind.name, kind.transfer_syntax or "", whole[part.start : part.end]
        )
    return bulk


def _check_references(models: list[Any], bulk: Mapping[str, BulkData]) -> None:
    """Refuse parts whose place is not certain, before anything is stored."""
    uses = Counter(bulk_data_uris(models))
    if any(count > 1 for uri, count in uses.items() if uri in bulk):
        raise _unclear("Several values refer to one of its parts.")
    if any(location not in uses for location in bulk):
        raise _unclear("Nothing in its metadata refers to one of its parts.")


def _at_fault() -> Broken:
    return Broken(
        "The instance was not stored.",
        why="Something unforeseen went wrong here while it was put together or stored.",
        remedy="The log tells what. Sending it again, or whole as application/dicom, does no harm.",
    )


def _found(bulk: Mapping[str, BulkData], uri: str) -> BulkData:
    try:
        return bulk[uri]
    except KeyError:
        raise Invalid(
            "The instance was not put together.",
            why="Its metadata refer to a part that is not in the request.",
            remedy="Give each part the BulkDataURI that it belongs to as its Content-Location.",
        ) from None


def _named(model: Any) -> tuple[str, str]:
    """Return SOP class and instance as far as the metadata tell, for the answer."""
    try:
        sop_class, instance = (str(model[tag]["Value"][0]) for tag in ("00080016", "00080018"))
        return check_uid(sop_class, "SOPClassUID"), check_uid(instance, "SOPInstanceUID")
    except (KeyError, IndexError, TypeError, Invalid):
        return "", ""


def _no_place() -> Unavailable:
    return Unavailable(
        "The request was not taken.",
        why="Others whose metadata and bulk data come apart are being received, and no more of "
        f"them at once; none was done within {WAIT_S:.0f} s.",
        remedy="Send it again later, or in requests of "
        f"{IN_MEMORY_BYTES >> 20} MiB at most that announce their length: those need not wait.",
    )


def _too_much(why: str) -> TooLarge:
    return TooLarge(
        "The request was not taken.",
        why=why,
        remedy="Send the instances in several requests, or whole, as application/dicom.",
    )


def _unclear(why: str) -> Invalid:
    return Invalid(
        "The request was not taken.",
        why=why,
        remedy='Send multipart/related; type="application/dicom+json": first the metadata as an '
        "array, then each bulk data item with its BulkDataURI as Content-Location.",
    )
