"""C-FIND in the Patient Root and Study Root models.

Enters: an identifier with keys. Leaves: one pending answer for each match, in the asker's
character set where that can carry it, then a final status.

References
----------
PS3.4 C.2 — matching; C.4.1 — behaviour of C-FIND and its statuses; C.5.1.1 — the extended
negotiation sub-fields; C.6 — the keys of each level.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import islice

from pacsteward.archive import Match
from pacsteward.dicom.attributes import name_of
from pacsteward.dicom.dimse import Answer, CommandField, Request
from pacsteward.dicom.identifier import Identifier, read_identifier, write_identifier
from pacsteward.dicom.information_models import FIND_MODELS, Model
from pacsteward.dicom.matching import Query
from pacsteward.dicom.settings import DicomSettings
from pacsteward.dicom.status import CANCEL, OUT_OF_RESOURCES, PENDING, PENDING_WARNING, SUCCESS
from pacsteward.feature import DimseService, House
from pacsteward.features.query.identifiers import answer_values, query_from
from pacsteward.features.query.settings import QuerySettings
from pacsteward.security import (
    AuditEntry,
    AuditEvent,
    AuditObject,
    actor_of_caller,
)

BATCH = 64
"""Matches that are fetched in one go: enough to make the change of thread cheap, few enough that
the first answer is early and a cancel is heard."""

RELATIONAL, DATE_TIME, FUZZY = 0, 1, 2
"""Sub-fields of the extended negotiation, PS3.4 C.5.1.1, counted from 0."""

WE_CAN = bytes((1, 1, 1, 0, 0))
"""Relational queries, combined date-time and fuzzy names: yes. Time zone adjustment and enhanced
multi-frame conversion: no."""


def negotiate(_house: House, _sop_class_uid: str, proposed: bytes) -> bytes:
    """Answer the extended negotiation truthfully: what was asked for and what we can."""
    return bytes(asked & ours for asked, ours in zip(proposed, WE_CAN, strict=False))


async def respond(house: House, request: Request, data: bytes | None) -> AsyncIterator[Answer]:
    """Answer one C-FIND."""
    model = FIND_MODELS[request.affected_sop_class_uid]
    identifier = read_identifier(data or b"", request.context.transfer_syntax)
    query = await asyncio.to_thread(_query, house, request, model, identifier)
    unsupported = await asyncio.to_thread(house.archive.unsupported, query)
    status = PENDING_WARNING if unsupported else PENDING
    cap = house.settings.of(QuerySettings).max_matches
    ae_title = house.settings.of(DicomSettings).ae_title
    given = 0
    matches = house.archive.find(query)
    while batch := await asyncio.to_thread(_batch, matches):
        for match in batch:
            if request.is_cancelled():
                yield Answer(CANCEL, comment="Cancelled by the caller")
                return
            if cap and given == cap:
                yield Answer(
                    OUT_OF_RESOURCES,
                    comment=f"Only the first {cap} matches are given; ask for less",
                )
                return
            yield Answer(status, _encode(match, identifier, query, request, ae_title))
            given += 1
    await asyncio.to_thread(_record, house, request, query, given)
    yield Answer(SUCCESS)


def _batch(matches: Iterator[Match]) -> list[Match]:
    return list(islice(matches, BATCH))


def _query(house: House, request: Request, model: Model, identifier: Identifier) -> Query:
    peer = house.peers.get(request.caller.calling_ae_title)
    is_lenient = house.settings.of(QuerySettings).is_lenient_in_levels or bool(
        peer and peer.is_lenient_in_levels
    )
    return query_from(
        identifier,
        model,
        is_relational=_agreed(request.extended, RELATIONAL) or is_lenient,
        combined_datetime=_agreed(request.extended, DATE_TIME),
        fuzzy=_agreed(request.extended, FUZZY),
    )


def _agreed(extended: bytes, sub_field: int) -> bool:
    return len(extended) > sub_field and extended[sub_field] == 1


def _encode(
    match: Match, identifier: Identifier, query: Query, request: Request, ae_title: str
) -> bytes:
    values, character_set = answer_values(
        match, identifier, query.level, retrieve_ae_title=ae_title
    )
    return write_identifier(
        values, character_set=character_set, transfer_syntax_uid=request.context.transfer_syntax
    )


def _record(house: House, request: Request, query: Query, given: int) -> None:
    """Write into the audit book who asked for what; keys by name, without their values."""
    caller = request.caller
    keys = ", ".join(name_of(tag) for tag in sorted(query.criteria)) or "nothing"
    entry = AuditEntry(
        event=AuditEvent.QUERY,
        action="E",
        actor=actor_of_caller(caller.calling_ae_title, caller.address, request.permissions),
        what=f"{caller.calling_ae_title} asked at {query.level} level by {keys}: {given} answers.",
        objects=(AuditObject("query", request.affected_sop_class_uid),),
    )
    with house.database.write(durable=False) as connection:
        house.audit.record(entry, connection)


FIND = DimseService(
    name="find",
    commands=frozenset({CommandField.C_FIND}),
    accepts=lambda _house, uid: uid in FIND_MODELS,
    permission="studies.find",
    transfer_syntaxes=(
        "1.2.840.10008.1.2.1",
        "1.2.840.10008.1.2",
        "1.2.840.10008.1.2.2",
    ),
    respond=respond,
    extended=negotiate,
)
