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
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass

from pacsteward.archive import Match
from pacsteward.base.errors import PacstewardError
from pacsteward.dicom.attributes import name_of
from pacsteward.dicom.dimse import Answer, CommandField, Request
from pacsteward.dicom.identifier import Identifier, read_identifier, write_identifier
from pacsteward.dicom.information_models import FIND_MODELS, Model
from pacsteward.dicom.matching import Query
from pacsteward.dicom.settings import DicomSettings
from pacsteward.dicom.status import CANCEL, OUT_OF_RESOURCES, PENDING, PENDING_WARNING, SUCCESS
from pacsteward.dicom.uids import UNCOMPRESSED
from pacsteward.feature import DimseService, House
from pacsteward.features.query.identifiers import answer_values, query_from, restricts_by_private
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


async def respond(
    house: House, request: Request, data: bytes | None
) -> AsyncGenerator[Answer, None]:
    """Answer one C-FIND."""
    model = FIND_MODELS[request.affected_sop_class_uid]
    identifier = read_identifier(data or b"", request.context.transfer_syntax)
    begun = await asyncio.to_thread(_begin, house, request, model, identifier)
    tally = _Tally(house.settings.of(QuerySettings).max_matches)
    try:
        async with aclosing(_matches(begun, request, tally)) as matches:
            async for match in matches:
                yield Answer(begun.status, _encode(house, match, identifier, begun.query, request))
    finally:
        # Also of one that was cancelled, or whose caller went away: it has seen the answers.
        _record(house, request, begun.query, tally.given)
    yield tally.final()


@dataclass(frozen=True, slots=True)
class _Begun:
    """A query with its first matches: all of them, unless there is a whole batch."""

    query: Query
    status: int
    first: list[Match]
    following: Iterator[Match]


@dataclass(slots=True)
class _Tally:
    """How far a query has come, and why it ended."""

    cap: int
    given: int = 0
    is_cancelled: bool = False
    is_capped: bool = False

    def final(self) -> Answer:
        """Say how it ended (PS3.4 C.4.1.1.4); never with an identifier."""
        if self.is_cancelled:
            return Answer(CANCEL, comment="Cancelled by the caller")
        if self.is_capped:
            # Only a failure tells the caller for certain that this is not all there is.
            words = f"Only the first {self.cap} matches are given; ask for less"
            return Answer(OUT_OF_RESOURCES, comment=words)
        return Answer(SUCCESS)


def _begin(house: House, request: Request, model: Model, identifier: Identifier) -> _Begun:
    """Do all that blocks in one go: most queries have few answers, and threads take their time."""
    query = _query(house, request, model, identifier)
    status = _pending_status(house, query, identifier)
    matches = house.archive.find(query)
    try:
        first = _batch(matches, request)
    except PacstewardError:
        _record(house, request, query, 0)
        raise
    return _Begun(query, status, first, matches)


async def _matches(begun: _Begun, request: Request, tally: _Tally) -> AsyncGenerator[Match, None]:
    """Give the matches batch by batch until there are no more, the cap is reached, or a cancel."""
    batch = begun.first
    while batch:
        for match in batch:
            tally.is_cancelled = request.is_cancelled()
            tally.is_capped = 0 < tally.cap <= tally.given
            if tally.is_cancelled or tally.is_capped:
                return
            tally.given += 1
            yield match
        is_whole = len(batch) == BATCH
        batch = await asyncio.to_thread(_batch, begun.following, request) if is_whole else []
    tally.is_cancelled = request.is_cancelled()


def _batch(matches: Iterator[Match], request: Request) -> list[Match]:
    """Fetch the next matches; those that are read from objects take long enough to be cancelled."""
    batch: list[Match] = []
    for match in matches:
        batch.append(match)
        if len(batch) == BATCH or request.is_cancelled():
            break
    return batch


def _pending_status(house: House, query: Query, identifier: Identifier) -> int:
    """Say with each answer whether a key that ought to restrict them could not."""
    is_ignored = house.archive.unsupported(query) or restricts_by_private(identifier)
    return PENDING_WARNING if is_ignored else PENDING


def _query(house: House, request: Request, model: Model, identifier: Identifier) -> Query:
    peer = house.peers.get(request.caller.calling_ae_title)
    settings = house.settings.of(QuerySettings)
    is_lenient = settings.is_lenient_in_levels or bool(peer and peer.is_lenient_in_levels)
    return query_from(
        identifier,
        model,
        is_relational=_agreed(request.extended, RELATIONAL) or is_lenient,
        combined_datetime=_agreed(request.extended, DATE_TIME),
        fuzzy=_agreed(request.extended, FUZZY),
        # One more than is given tells whether there are others.
        limit=settings.max_matches + 1 if settings.max_matches else None,
    )


def _agreed(extended: bytes, sub_field: int) -> bool:
    return len(extended) > sub_field and extended[sub_field] == 1


def _encode(
    house: House, match: Match, identifier: Identifier, query: Query, request: Request
) -> bytes:
    ae_title = house.settings.of(DicomSettings).ae_title
    values, character_set = answer_values(
        match, identifier, query.level, retrieve_ae_title=ae_title
    )
    return write_identifier(
        values, character_set=character_set, transfer_syntax_uid=request.context.transfer_syntax
    )


def _record(house: House, request: Request, query: Query, given: int) -> None:
    """Have the audit book write who asked for what; keys by name, without their values."""
    caller = request.caller
    keys = ", ".join(name_of(tag) for tag in sorted(query.criteria)) or "nothing"
    entry = AuditEntry(
        event=AuditEvent.QUERY,
        action="E",
        actor=actor_of_caller(caller.calling_ae_title, caller.address, request.permissions),
        what=f"{caller.calling_ae_title} asked at {query.level} level by {keys}: {given} answers.",
        objects=(AuditObject("query", request.affected_sop_class_uid),),
    )
    house.audit.record_soon(entry)


FIND = DimseService(
    name="find",
    commands=frozenset({CommandField.C_FIND}),
    accepts=lambda _house, uid: uid in FIND_MODELS,
    permission="studies.find",
    transfer_syntaxes=UNCOMPRESSED,
    respond=respond,
    extended=negotiate,
)
