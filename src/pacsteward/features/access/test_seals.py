"""The audit book cannot be written anew by who can only write to the database."""

from __future__ import annotations

from sqlalchemy import text
from tests.support.console import small_house

from pacsteward.base.clock import ManualClock
from pacsteward.base.db import Database
from pacsteward.features.access import seals
from pacsteward.security import HOUSE, AuditEntry, AuditEvent, audit_chain


def _entries(count: int) -> list[AuditEntry]:
    return [
        AuditEntry(event=AuditEvent.QUERY, action="E", actor=HOUSE, what=f"Question {number}.")
        for number in range(count)
    ]


def test_a_sealed_book_is_whole(database: Database, clock: ManualClock) -> None:
    house = small_house(database, clock)
    house.audit.record_all(_entries(3))
    assert seals.seal(house) == 3
    house.audit.record_all(_entries(2))
    report = seals.verify(house)
    assert report.is_whole
    assert (report.entries, report.seals) == (5, 1)


def test_s10_a_signature_made_with_another_key_is_found(
    database: Database, clock: ManualClock
) -> None:
    house = small_house(database, clock)
    house.audit.record_all(_entries(3))
    seals.seal(house)
    with database.write() as connection:
        (hash_,) = connection.execute(text("SELECT hash FROM audit_seal")).one()
        forged = audit_chain.signature(b"another key of thirty-two bytes..", 3, hash_)
        connection.execute(text("UPDATE audit_seal SET signature = :forged"), {"forged": forged})
    assert not seals.verify(house).is_whole
