"""S10: nobody can change what is in the audit book unseen."""

from __future__ import annotations

import contextlib
import random
import threading

import pytest
from sqlalchemy import delete, select, update

from pacsteward.base.clock import ManualClock
from pacsteward.base.db import Database
from pacsteward.security import AuditBook, audit_chain
from pacsteward.security.tables import AUDIT_ENTRY, AUDIT_HEAD, AUDIT_OBJECT
from pacsteward.security.test_support import an_entry, filled


def test_chain_of_an_empty_book_is_whole(audit: AuditBook) -> None:
    report = audit.verify()
    assert report.is_whole
    assert report.entries == 0


def test_writers_at_the_same_time_make_one_chain(database: Database, clock: ManualClock) -> None:
    books = [AuditBook(database, clock) for _ in range(4)]

    def write(book: AuditBook) -> None:
        for number in range(15):
            book.record(an_entry(number))

    threads = [threading.Thread(target=write, args=(book,)) for book in books]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report = books[0].verify()
    assert report.is_whole
    assert report.entries == 60


def _change(connection, number: int) -> None:
    connection.execute(
        update(AUDIT_ENTRY).where(AUDIT_ENTRY.c.sequence == number).values(actor="mallory")
    )


def _delete(connection, number: int) -> None:
    connection.execute(delete(AUDIT_ENTRY).where(AUDIT_ENTRY.c.sequence == number))


def _reorder(connection, number: int) -> None:
    other = number - 1 if number > 1 else number + 1
    table = AUDIT_ENTRY
    for old, new in ((number, -1), (other, number), (-1, other)):
        connection.execute(update(table).where(table.c.sequence == old).values(sequence=new))


def _truncate(connection, number: int) -> None:
    connection.execute(delete(AUDIT_ENTRY).where(AUDIT_ENTRY.c.sequence >= number))


def _backdate(connection, number: int) -> None:
    row = connection.execute(select(AUDIT_ENTRY).where(AUDIT_ENTRY.c.sequence == number)).one()
    moved = row.recorded_at.replace(year=row.recorded_at.year - 1)
    connection.execute(
        update(AUDIT_ENTRY).where(AUDIT_ENTRY.c.sequence == number).values(recorded_at=moved)
    )


class _Undo(Exception):
    pass


def _report_after(
    database: Database, tamper, number: int, newest: int | None = None
) -> audit_chain.ChainReport:
    """Tamper, walk the chain, and undo the tampering."""
    with contextlib.suppress(_Undo), database.write() as connection:
        tamper(connection, number)
        report = audit_chain.walk(connection, newest=newest)
        raise _Undo
    return report


@pytest.mark.parametrize("tamper", [_change, _delete, _truncate, _backdate])
def test_newest_part_can_be_checked_alone(database: Database, clock: ManualClock, tamper) -> None:
    audit = AuditBook(database, clock)
    filled(audit, 50)
    report = audit.verify(newest=10)
    assert (report.entries, report.is_whole) == (10, True)
    assert audit.verify(newest=500).entries == 50
    for number, is_seen in ((45, True), (50, True), (41, True), (20, False)):
        found = _report_after(database, tamper, number, newest=10)
        assert found.is_whole is not (is_seen or tamper is _truncate), number


@pytest.mark.parametrize("tamper", [_change, _delete, _reorder, _truncate, _backdate])
def test_every_tampering_is_found(database: Database, clock: ManualClock, tamper) -> None:
    """S10: one record anywhere, found each time."""
    audit = AuditBook(database, clock)
    filled(audit, 300)
    chosen = random.Random(7).sample(range(1, 301), 6)
    for number in [1, 300, *chosen]:
        report = _report_after(database, tamper, number)
        assert not report.is_whole, number
        assert min(fault.sequence for fault in report.faults) <= number + 1
    assert audit.verify().is_whole


def test_a_chain_computed_anew_contradicts_its_seal(database: Database, clock: ManualClock) -> None:
    """Whoever can write to the database can compute hashes, and has no seal key."""
    key = b"k" * 32
    audit = AuditBook(database, clock)
    filled(audit, 20)
    assert audit.seal(key) == 20
    with database.write() as connection:
        for table in (AUDIT_ENTRY, AUDIT_OBJECT):
            connection.execute(delete(table).where(table.c.sequence >= 10))
        last = connection.execute(
            select(AUDIT_ENTRY.c.hash).where(AUDIT_ENTRY.c.sequence == 9)
        ).scalar()
        connection.execute(update(AUDIT_HEAD).values(sequence=9, hash=last))
    assert not audit.verify(seal_key=key).is_whole
    filled(audit, 11)
    report = audit.verify(seal_key=key)
    assert [fault.kind for fault in report.faults] == ["rewritten"]


def test_a_seal_of_another_key_is_found(audit: AuditBook) -> None:
    filled(audit, 3)
    audit.seal(b"k" * 32)
    assert audit.verify(seal_key=b"k" * 32).is_whole
    assert not audit.verify(seal_key=b"x" * 32).is_whole


def test_sealing_twice_changes_nothing(audit: AuditBook) -> None:
    assert audit.seal(b"k" * 32) == 0
    filled(audit, 3)
    assert [audit.seal(b"k" * 32) for _ in range(2)] == [3, 3]
    assert audit.verify().seals == 1
