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
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from pacsteward.archive import Match
from pacsteward.base.errors import Invalid, PacstewardError, WouldWait
from pacsteward.dicom.dimse import Answer, Answers, CommandField, Request
from pacsteward.dicom.identifier import Identifier, read_identifier
from pacsteward.dicom.information_models import FIND_MODELS
from pacsteward.dicom.matching import Query
from pacsteward.dicom.settings import DicomSettings
from pacsteward.dicom.status import CANCEL, OUT_OF_RESOURCES, PENDING, PENDING_WARNING, SUCCESS
from pacsteward.dicom.uids import UNCOMPRESSED
from pacsteward.feature import DimseService, House
from pacsteward.features.query.identifiers import (
    AnswerWriter,
    named,
    query_from,
    restricts_by_private,
)
from pacsteward.features.query.settings import QuerySettings
from pacsteward.security import actor_of_caller

FETCHED_MAX: Final = 500
FETCHING_MAX_S: Final = 0.05
"""How many matches are fetched in one go, and for how long: enough to make the change of thread
cheap, short enough that the first answer is early where objects have to be read."""

TOGETHER: Final = 50
"""Answers that go out with one write, which takes a millisecond. After each a cancel is heard, and
other associations have their turn."""

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
) -> AsyncGenerator[Answers, None]:
    """Answer one C-FIND."""
    identifier = read_identifier(data or b"", request.context.transfer_syntax)
    begun = None
    # Room is made before: the entry of what was answered must be taken, and without waiting.
    if not house.audit.is_crowded:
        begun = _begin_at_once(house, request, identifier)
    if begun is None:
        begun = await asyncio.to_thread(_begin, house, request, identifier)
    tally = _Tally(house.settings.of(QuerySettings).max_matches)
    answers: list[Answer] = []
    try:
        async with aclosing(_portions(house, begun, request, tally)) as portions:
            async for matches in portions:
                answers = [Answer(begun.status, begun.writer.write(match)) for match in matches]
                if tally.is_over:
                    break
                yield answers
                answers = []
    finally:
        # Also of one that was cancelled, or whose caller went away: it has seen the answers.
        _record(house, request, begun.query, tally.given)
    yield [*answers, tally.final()]


@dataclass(frozen=True, slots=True)
class _Batch:
    """Matches that were fetched together; whether they are the last."""

    matches: Sequence[Match]
    is_last: bool


@dataclass(frozen=True, slots=True)
class _Begun:
    """A query with its first matches: all of them, unless they are very many."""

    query: Query
    status: int
    """Of each answer: whether a key that ought to restrict them could not."""
    writer: AnswerWriter
    first: _Batch
    following: Iterator[Match]


@dataclass(slots=True)
class _Tally:
    """How far a query has come, and why it ended."""

    cap: int
    given: int = 0
    is_over: bool = False
    is_cancelled: bool = False
    is_capped: bool = False

    def take(self, matches: Sequence[Match], *, are_last: bool) -> Sequence[Match]:
        """Count matches that are given, and return them; fewer at the cap."""
        if 0 < self.cap < self.given + len(matches):
            matches = matches[: self.cap - self.given]
            self.is_capped = True
        self.given += len(matches)
        self.is_over = self.is_capped or are_last
        return matches

    def final(self) -> Answer:
        """Say how it ended (PS3.4 C.4.1.1.4); never with an identifier."""
        if self.is_cancelled:
            return Answer(CANCEL, comment="Cancelled by the caller")
        if self.is_capped:
            # Only a failure tells the caller for certain that this is not all there is.
            words = f"Only the first {self.cap} matches are given; ask for less"
            return Answer(OUT_OF_RESOURCES, comment=words)
        return Answer(SUCCESS)


def _begin_at_once(house: House, request: Request, identifier: Identifier) -> _Begun | None:
    """Do what `_begin` does on the event loop; None where `WouldWait` leaves it to a thread."""
    try:
        query = _query(house, request, identifier, is_relational=_is_relational(house, request))
        matches = house.archive.find_at_once(query)
    except (WouldWait, Invalid):
        return None  # `_begin` says what is wrong with one that is not in order
    return _begun(house, request, identifier, query, _Batch(matches, is_last=True), iter(()))


def _begin(house: House, request: Request, identifier: Identifier) -> _Begun:
    """Do all that blocks in one go."""
    house.audit.make_room()
    query = _query_as_peer_may_ask(house, request, identifier)
    matches = house.archive.find(query)
    try:
        first = _batch(house, matches, request)
    except PacstewardError:
        _record(house, request, query, 0)
        raise
    return _begun(house, request, identifier, query, first, matches)


def _begun(
    house: House,
    request: Request,
    identifier: Identifier,
    query: Query,
    first: _Batch,
    following: Iterator[Match],
) -> _Begun:
    is_ignored = house.archive.unsupported(query) or restricts_by_private(identifier)
    writer = AnswerWriter(
        identifier,
        query.level,
        retrieve_ae_title=house.settings.of(DicomSettings).ae_title,
        transfer_syntax_uid=request.context.transfer_syntax,
    )
    return _Begun(query, PENDING_WARNING if is_ignored else PENDING, writer, first, following)


async def _portions(
    house: House, begun: _Begun, request: Request, tally: _Tally
) -> AsyncGenerator[Sequence[Match], None]:
    """Give the matches portion by portion until the last one, the cap, or a cancel."""
    batch = begun.first
    while batch.matches:
        for start in range(0, len(batch.matches), TOGETHER):
            if request.is_cancelled():
                break
            end = start + TOGETHER
            are_last = batch.is_last and end >= len(batch.matches)
            yield tally.take(batch.matches[start:end], are_last=are_last)
        if tally.is_over or request.is_cancelled():
            break
        batch = await asyncio.to_thread(_batch, house, begun.following, request)
    tally.is_cancelled = request.is_cancelled()


def _batch(house: House, matches: Iterator[Match], request: Request) -> _Batch:
    """Fetch the next matches; those that are read from objects take long enough to be cancelled."""
    batch: list[Match] = []
    ends_at = house.clock.monotonic() + FETCHING_MAX_S
    for match in matches:
        batch.append(match)
        is_long = len(batch) == FETCHED_MAX or house.clock.monotonic() > ends_at
        if is_long or request.is_cancelled():
            return _Batch(batch, is_last=False)
    return _Batch(batch, is_last=True)


def _query_as_peer_may_ask(house: House, request: Request, identifier: Identifier) -> Query:
    is_relational = _is_relational(house, request)
    try:
        return _query(house, request, identifier, is_relational=is_relational)
    except Invalid:
        # Few questions leave out a level, so the peer is looked up for those alone.
        peer = house.peers.get(request.caller.calling_ae_title)
        if is_relational or peer is None or not peer.is_lenient_in_levels:
            raise
        return _query(house, request, identifier, is_relational=True)


def _is_relational(house: House, request: Request) -> bool:
    is_lenient = house.settings.of(QuerySettings).is_lenient_in_levels
    return _agreed(request.extended, RELATIONAL) or is_lenient


def _query(house: House, request: Request, identifier: Identifier, *, is_relational: bool) -> Query:
    most = house.settings.of(QuerySettings).max_matches
    return query_from(
        identifier,
        FIND_MODELS[request.affected_sop_class_uid],
        is_relational=is_relational,
        combined_datetime=_agreed(request.extended, DATE_TIME),
        fuzzy=_agreed(request.extended, FUZZY),
        # One more than is given tells whether there are others.
        limit=most + 1 if most else None,
    )


def _agreed(extended: bytes, sub_field: int) -> bool:
    return len(extended) > sub_field and extended[sub_field] == 1


def _record(house: House, request: Request, query: Query, given: int) -> None:
    caller = request.caller
    house.audit.record_query(
        actor_of_caller(caller.calling_ae_title, caller.address, request.permissions),
        level=query.level,
        keys=named(query),
        matches=given,
        asked=request.affected_sop_class_uid,
    )


FIND = DimseService(
    name="find",
    commands=frozenset({CommandField.C_FIND}),
    accepts=lambda _house, uid: uid in FIND_MODELS,
    permission="studies.find",
    transfer_syntaxes=UNCOMPRESSED,
    respond=respond,
    extended=negotiate,
)
