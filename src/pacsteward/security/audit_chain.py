"""The chain: why no entry of the audit book can be changed, removed or moved unseen.

Each entry carries a SHA-256 hash over the hash of the entry before it and over its own content
with its number. One row beside the entries says where the chain ends. So a change breaks the
entry's own hash, a removal leaves a gap in the numbers, a move breaks both places, and cutting off
the end contradicts the last row.

Somebody who may write to the database could compute the whole chain anew. Against that, seals: now
and then the present end is signed with a key that lies outside the database. A chain that was
computed anew up to before a seal no longer fits it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import Connection, Row, func, insert, select

from pacsteward.security.tables import AUDIT_ENTRY, AUDIT_HEAD, AUDIT_SEAL

BEGINNING = "0" * 64
"""The hash before the first entry."""

FAULTS_MAX = 100
PAGE_ROWS = 5_000

_CONTENT = (
    "sequence",
    "recorded_at",
    "event",
    "event_type",
    "action",
    "outcome",
    "actor_kind",
    "actor",
    "address",
    "what",
    "objects",
    "participants",
)


@dataclass(frozen=True, slots=True)
class ChainFault:
    """A place where the chain is broken."""

    kind: Literal["changed", "missing", "cut_off", "added", "rewritten"]
    sequence: int
    words: str


@dataclass(frozen=True, slots=True)
class ChainReport:
    """What one walk along the chain found."""

    entries: int
    first_recorded_at: datetime | None
    last_recorded_at: datetime | None
    faults: tuple[ChainFault, ...]
    seals: int

    @property
    def is_whole(self) -> bool:
        """Whether nothing was changed, removed, moved or added."""
        return not self.faults


def link(previous: str, content: dict[str, Any]) -> str:
    """Return the hash of an entry with this `content` after the entry with hash `previous`."""
    values = [content[name] for name in _CONTENT]
    values[1] = values[1].astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(f"{previous}\n{text}".encode()).hexdigest()


def signature(key: bytes, sequence: int, hash_: str) -> str:
    """Sign the end of the chain."""
    return hmac.digest(key, f"{sequence}\n{hash_}".encode(), "sha256").hex()


def seal(connection: Connection, key: bytes, now: datetime) -> int:
    """Sign the present end, unless it is signed; see `AuditBook.seal`."""
    head = connection.execute(select(AUDIT_HEAD)).one_or_none()
    if head is None:
        return 0
    known = connection.execute(
        select(func.count()).where(AUDIT_SEAL.c.sequence == head.sequence)
    ).scalar()
    if not known:
        connection.execute(
            insert(AUDIT_SEAL).values(
                sequence=head.sequence,
                hash=head.hash,
                sealed_at=now,
                signature=signature(key, head.sequence, head.hash),
            )
        )
    return int(head.sequence)


def walk(
    connection: Connection, *, seal_key: bytes | None = None, newest: int | None = None
) -> ChainReport:
    """Check every entry, the end and the seals.

    Parameters
    ----------
    connection
        Sees one consistent state while it is walked.
    seal_key
        Without it, seals are compared with the entries but their signatures are not checked.
    newest
        Check only so many entries before the end; None checks all of them.
    """
    faults: list[ChainFault] = []
    seals = {row.sequence: row for row in connection.execute(select(AUDIT_SEAL))}
    seals_count = len(seals)
    entries, first, last = 0, None, None
    passed, previous = _start(connection, newest)
    expected = passed + 1
    for row in _rows(connection, after=passed if newest is not None else -1):
        first = first or row.recorded_at
        last = row.recorded_at
        entries += 1
        if row.sequence != expected:
            faults.append(_missing(expected, row.sequence - 1))
        elif link(previous, row._asdict()) != row.hash:
            words = f"Entry {row.sequence} is not what was recorded, or not in its place."
            faults.append(ChainFault("changed", row.sequence, words))
        sealed = seals.pop(row.sequence, None)
        if sealed is not None and not _fits(sealed, row.hash, seal_key):
            words = f"Entry {row.sequence} is not the one that was sealed."
            faults.append(ChainFault("rewritten", row.sequence, words))
        if len(faults) >= FAULTS_MAX:
            break
        expected, previous = row.sequence + 1, row.hash
    else:
        faults += _faults_of_end(connection, expected - 1, previous, seals)
    return ChainReport(entries, first, last, tuple(faults), seals_count)


def _start(connection: Connection, newest: int | None) -> tuple[int, str]:
    """Give number and hash of the entry that comes before the first to be checked."""
    if newest is None:
        return 0, BEGINNING
    head = connection.execute(select(AUDIT_HEAD.c.sequence)).scalar() or 0
    before = connection.execute(
        select(AUDIT_ENTRY.c.sequence, AUDIT_ENTRY.c.hash)
        .where(AUDIT_ENTRY.c.sequence.between(1, head - newest))
        .order_by(AUDIT_ENTRY.c.sequence.desc())
        .limit(1)
    ).one_or_none()
    return (before.sequence, before.hash) if before else (0, BEGINNING)


def _rows(connection: Connection, *, after: int) -> Iterator[Row[Any]]:
    while True:
        page = connection.execute(
            select(AUDIT_ENTRY)
            .where(AUDIT_ENTRY.c.sequence > after)
            .order_by(AUDIT_ENTRY.c.sequence)
            .limit(PAGE_ROWS)
        ).all()
        yield from page
        if len(page) < PAGE_ROWS:
            return
        after = page[-1].sequence


def _faults_of_end(
    connection: Connection, sequence: int, hash_: str, seals_left: Iterable[int]
) -> list[ChainFault]:
    head = connection.execute(select(AUDIT_HEAD)).one_or_none()
    said, said_hash = (head.sequence, head.hash) if head else (0, BEGINNING)
    end = max([said, *seals_left])
    if end > sequence:
        return [
            ChainFault("cut_off", sequence + 1, f"Entries {sequence + 1} to {end} were cut off.")
        ]
    if said < sequence:
        words = f"Entries {said + 1} to {sequence} were added behind the end of the chain."
        return [ChainFault("added", said + 1, words)]
    if said_hash != hash_:
        words = f"Entry {sequence} is not the one that ended the chain."
        return [ChainFault("changed", sequence, words)]
    return []


def _missing(first: int, last: int) -> ChainFault:
    if last < first:
        return ChainFault("added", last + 1, f"Entry {last + 1} was put before the first one.")
    which = f"Entry {first} is" if first == last else f"Entries {first} to {last} are"
    return ChainFault("missing", first, f"{which} missing.")


def _fits(sealed: Row[Any], hash_: str, key: bytes | None) -> bool:
    if sealed.hash != hash_:
        return False
    if key is None:
        return True
    return hmac.compare_digest(sealed.signature, signature(key, sealed.sequence, sealed.hash))
