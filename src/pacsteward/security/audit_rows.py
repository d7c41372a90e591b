"""The rows of the audit book: entries in, numbered and chained; entries out, by filter.

An entry is one row, whose objects and participants are JSON, as the chain hashes them. Its objects
are rows of their own as well, so that all that was done to a study or a person is found by an
index.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, insert, select, text, update

from pacsteward.base.clock import Clock
from pacsteward.base.db import RowInsert
from pacsteward.security import audit_chain
from pacsteward.security.audit_entry import (
    AuditEntry,
    AuditEvent,
    AuditEventType,
    AuditObject,
    AuditOutcome,
    Participant,
    RecordedEntry,
    plain,
)
from pacsteward.security.tables import AUDIT_ENTRY, AUDIT_HEAD, AUDIT_OBJECT

_CHAIN_LOCK = 0x61756469
"""PostgreSQL advisory lock: only one transaction at a time may begin the chain."""

_INSERT_ENTRIES: Final = RowInsert(AUDIT_ENTRY, [column.name for column in AUDIT_ENTRY.c])
_INSERT_OBJECTS: Final = RowInsert(AUDIT_OBJECT, [column.name for column in AUDIT_OBJECT.c])


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which entries; empty fields do not restrict.

    Parameters
    ----------
    object_id
        Study Instance UID, patient ID, AE title, name of a person or token.
    containing
        Words that the sentence or the actor's name contains, in any case.
    """

    actor: str = ""
    event: AuditEvent | None = None
    object_id: str = ""
    containing: str = ""
    only_failures: bool = False
    since: datetime | None = None
    until: datetime | None = None


def append(connection: Connection, entries: Sequence[AuditEntry], clock: Clock) -> int:
    """Write `entries`, numbered and chained, and return the number of the last one."""
    head = _end_of_chain(connection)
    sequence, previous = (head.sequence, head.hash) if head else (0, audit_chain.BEGINNING)
    now = clock.now()  # not before others' turn was waited for
    rows, objects = [], []
    for entry in entries:
        sequence += 1
        row = _row(entry, sequence, now)
        row["hash"] = previous = audit_chain.link(previous, row)
        rows.append(row)
        objects += _object_rows(entry, sequence)
    if not rows:
        return sequence
    _INSERT_ENTRIES.execute(connection, rows)
    _INSERT_OBJECTS.execute(connection, objects)
    end = {"id": 1, "sequence": sequence, "hash": previous}
    connection.execute(
        insert(AUDIT_HEAD).values(end) if head is None else update(AUDIT_HEAD).values(end)
    )
    return sequence


def _end_of_chain(connection: Connection) -> Row[Any] | None:
    """Return where the chain ends, which nobody else moves until the transaction ends."""
    # SQLite has one writer at a time by itself, and leaves the lock out.
    query = select(AUDIT_HEAD).with_for_update()
    head = connection.execute(query).one_or_none()
    if head is None and connection.dialect.name == "postgresql":
        # There is no row yet to be locked.
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_CHAIN_LOCK})"))
        head = connection.execute(query).one_or_none()
    return head


def _row(entry: AuditEntry, sequence: int, now: datetime) -> dict[str, Any]:
    return {
        "sequence": sequence,
        "recorded_at": now,
        "event": str(entry.event),
        "event_type": str(entry.event_type),
        "action": entry.action,
        "outcome": int(entry.outcome),
        "actor_kind": entry.actor.kind,
        "actor": plain(entry.actor.name, 200),
        "address": plain(entry.actor.address, 64),
        "what": plain(entry.what),
        "objects": _json(_plain_object(thing) for thing in entry.objects),
        "participants": _json(
            {"name": plain(who.name, 200), "address": plain(who.address, 64), "role": who.role}
            for who in entry.participants
        ),
    }


def _plain_object(thing: AuditObject) -> dict[str, Any]:
    values = asdict(thing)
    values["object_id"] = plain(thing.object_id, 500)
    values["query"] = plain(thing.query, 4000)
    return {name: value for name, value in values.items() if value not in ("", None)}


def _object_rows(entry: AuditEntry, sequence: int) -> list[dict[str, Any]]:
    return [
        {
            "sequence": sequence,
            "position": position,
            "kind": thing.kind,
            "object_id": plain(thing.object_id, 500),
        }
        for position, thing in enumerate(entry.objects)
    ]


def _json(values: Iterable[Any]) -> str:
    return json.dumps(list(values), ensure_ascii=False, separators=(",", ":"))


def page(
    connection: Connection, wanted: AuditFilter, *, before: int | None, limit: int
) -> list[RecordedEntry]:
    """Return entries, the newest first; see `AuditBook.entries`."""
    query = _filtered(wanted).order_by(AUDIT_ENTRY.c.sequence.desc())
    if before is not None:
        query = query.where(AUDIT_ENTRY.c.sequence < before)
    rows = connection.execute(query.limit(max(1, min(limit, 1_000)))).all()
    return [_entry(row) for row in rows]


def _filtered(wanted: AuditFilter) -> Select[Any]:
    columns = AUDIT_ENTRY.c
    query = select(AUDIT_ENTRY)
    if wanted.actor:
        query = query.where(columns.actor == plain(wanted.actor, 200))
    if wanted.event is not None:
        query = query.where(columns.event == str(wanted.event))
    if wanted.only_failures:
        query = query.where(columns.outcome > 0)
    if wanted.since is not None:
        query = query.where(columns.recorded_at >= wanted.since)
    if wanted.until is not None:
        query = query.where(columns.recorded_at < wanted.until)
    if wanted.containing:
        words = plain(wanted.containing, 200)
        query = query.where(
            columns.what.icontains(words, autoescape=True)
            | columns.actor.icontains(words, autoescape=True)
        )
    if wanted.object_id:
        object_id = plain(wanted.object_id, 500)
        query = query.where(
            columns.sequence.in_(
                select(AUDIT_OBJECT.c.sequence).where(AUDIT_OBJECT.c.object_id == object_id)
            )
        )
    return query


def _entry(row: Row[Any]) -> RecordedEntry:
    return RecordedEntry(
        sequence=row.sequence,
        recorded_at=row.recorded_at,
        event=AuditEvent(row.event),
        event_type=AuditEventType(row.event_type),
        action=row.action,
        outcome=AuditOutcome(row.outcome),
        actor_kind=row.actor_kind,
        actor=row.actor,
        address=row.address,
        what=row.what,
        objects=tuple(AuditObject(**thing) for thing in json.loads(row.objects)),
        participants=tuple(Participant(**who) for who in json.loads(row.participants)),
        hash=row.hash,
    )


def total(connection: Connection) -> int:
    """Return how many entries were ever recorded."""
    return int(connection.execute(select(AUDIT_HEAD.c.sequence)).scalar() or 0)
