"""C-MOVE and C-GET in the Patient Root and Study Root models.

Enters: an identifier that names patients, studies, series or instances. Leaves: the objects, over
associations of our own to a registered peer (C-MOVE) or over the caller's association (C-GET), and
answers that count them. One refused object never stops the rest.

References
----------
PS3.4 C.4.2 and C.4.3 — C-MOVE and C-GET, their statuses and counters; PS3.7 9.1.3 and 9.1.4.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Final

from pacsteward.archive import Instance
from pacsteward.base.errors import PacstewardError
from pacsteward.base.ids import AeTitle, Uid
from pacsteward.dicom.dimse import Answer, CommandField, PresentationContext, Request
from pacsteward.dicom.identifier import read_identifier
from pacsteward.dicom.information_models import GET_MODELS, MOVE_MODELS, Model
from pacsteward.dicom.settings import DicomSettings
from pacsteward.dicom.status import MOVE_DESTINATION_UNKNOWN
from pacsteward.dicom.uids import UNCOMPRESSED
from pacsteward.feature import DimseService, House
from pacsteward.features.retrieve.move import Errand, send
from pacsteward.features.retrieve.outgoing import (
    Outgoing,
    Source,
    chunks,
    read_ahead,
)
from pacsteward.features.retrieve.selection import selection_from
from pacsteward.features.retrieve.settings import RetrieveSettings
from pacsteward.features.retrieve.sub_operations import Tally
from pacsteward.features.retrieve.transfers import Sending, record_leaving, sent
from pacsteward.security import actor_of_caller

MOVE_DESTINATION: Final = 0x00000600

WE_CAN: Final = bytes((1, 0))
"""Sub-fields of the extended negotiation, PS3.4 C.5.2.1 and C.5.3.1: relational retrieval, yes;
conversion of multi-frame objects, no."""


def negotiate(_house: House, _sop_class_uid: str, proposed: bytes) -> bytes:
    """Answer the extended negotiation truthfully: what was asked for and what we can."""
    return bytes(asked & ours for asked, ours in zip(proposed, WE_CAN, strict=False))


async def respond_move(
    house: House, request: Request, data: bytes | None
) -> AsyncGenerator[Answer, None]:
    """Send what the identifier names to the move destination."""
    wanted = str(request.command.get(MOVE_DESTINATION, ""))
    destination = await asyncio.to_thread(house.peers.get, wanted)
    if destination is None:
        yield Answer(
            MOVE_DESTINATION_UNKNOWN, comment=f"Move destination {wanted} is not registered here"
        )
        return
    instances = await _instances(house, request, data, MOVE_MODELS)
    syntax = request.context.transfer_syntax
    if not instances:
        yield Tally(total=0).final(syntax)
        return
    sending = await _begun(house, request, instances, destination.ae_title)
    errand = Errand(
        archive=house.archive,
        destination=destination,
        calling_ae_title=AeTitle(
            house.settings.of(DicomSettings).answers_as(request.caller.called_ae_title)
        ),
        settings=house.settings.of(RetrieveSettings),
        originator=(request.caller.calling_ae_title, request.message_id),
        is_cancelled=request.is_cancelled,
    )
    with sent(house.audit, sending) as tally:
        async with aclosing(send(errand, instances, tally)) as progress:
            async for _ in progress:
                if tally.done < tally.total and not request.is_cancelled():
                    yield tally.pending()
    yield tally.cancelled(syntax) if tally.done < tally.total else tally.final(syntax)


async def respond_get(
    house: House, request: Request, data: bytes | None
) -> AsyncGenerator[Answer, None]:
    """Send what the identifier names back over the caller's own association."""
    instances = await _instances(house, request, data, GET_MODELS)
    sending = await _begun(house, request, instances, request.caller.calling_ae_title)
    settings = house.settings.of(RetrieveSettings)
    source = Source(house.archive, settings, _sendable(request), is_cancelled=request.is_cancelled)
    told_at = house.clock.monotonic()
    syntax = request.context.transfer_syntax
    with sent(house.audit, sending) as tally:
        async with aclosing(read_ahead(source, instances)) as ready:
            async for instance, outgoing in ready:
                if request.is_cancelled():
                    break
                await _send_back(house, request, instance, outgoing, tally)
                now = house.clock.monotonic()
                if now - told_at >= settings.pending_interval_s and tally.done < tally.total:
                    yield tally.pending()
                    told_at = now
    yield tally.cancelled(syntax) if tally.done < tally.total else tally.final(syntax)


async def _instances(
    house: House, request: Request, data: bytes | None, models: Mapping[str, Model]
) -> list[Instance]:
    identifier = read_identifier(data or b"", request.context.transfer_syntax)
    selection = selection_from(identifier, models[request.affected_sop_class_uid])
    return await asyncio.to_thread(house.archive.instances, selection)


def _sendable(request: Request) -> tuple[PresentationContext, ...]:
    """List the contexts on which the caller has taken the SCP role."""
    return tuple(one for one in request.channel.contexts if one.as_scp)


async def _send_back(
    house: House,
    request: Request,
    instance: Instance,
    outgoing: Outgoing | PacstewardError,
    tally: Tally,
) -> None:
    if isinstance(outgoing, PacstewardError):
        tally.fail(instance.sop_instance_uid, outgoing.why or outgoing.what)
        return
    status, comment = await request.channel.store(
        outgoing.context_id,
        Uid(instance.sop_class_uid),
        Uid(instance.sop_instance_uid),
        outgoing.data if outgoing.data is not None else chunks(house.archive, outgoing),
    )
    tally.record(instance.sop_instance_uid, status, comment)


async def _begun(
    house: House, request: Request, instances: Sequence[Instance], receiver: str
) -> Sending:
    """Record that what was asked for begins to leave."""
    caller = request.caller
    by = actor_of_caller(caller.calling_ae_title, caller.address, request.permissions)
    sending = Sending(by, instances, receiver)
    await asyncio.to_thread(record_leaving, house.audit, sending)
    return sending


MOVE = DimseService(
    name="move",
    commands=frozenset({CommandField.C_MOVE}),
    accepts=lambda _house, uid: uid in MOVE_MODELS,
    permission="studies.move",
    transfer_syntaxes=UNCOMPRESSED,
    respond=respond_move,
    extended=negotiate,
)

GET = DimseService(
    name="get",
    commands=frozenset({CommandField.C_GET}),
    accepts=lambda _house, uid: uid in GET_MODELS,
    permission="studies.read",
    transfer_syntaxes=UNCOMPRESSED,
    respond=respond_get,
    extended=negotiate,
)
