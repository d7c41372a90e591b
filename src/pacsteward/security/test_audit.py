"""The audit book: what is in it, and that nobody can change it unseen."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Sequence
from xml.etree import ElementTree

import pytest
from sqlalchemy import delete, select, update

from pacsteward.base.clock import ManualClock
from pacsteward.base.db import Database
from pacsteward.base.errors import Unavailable
from pacsteward.security import (
    Actor,
    AuditBook,
    AuditEntry,
    AuditEvent,
    AuditEventType,
    AuditFilter,
    AuditObject,
    AuditOutcome,
    Participant,
    audit_chain,
    to_dicom_audit_xml,
)
from pacsteward.security.audit_later import DELAY_S, Later
from pacsteward.security.tables import AUDIT_ENTRY, AUDIT_HEAD, AUDIT_OBJECT

ADA = Actor("person", "ada", frozenset(), "10.1.1.7")
STUDY = "1.2.840.113619.2.55.3.604688119"


def an_entry(number: int = 0, **more: object) -> AuditEntry:
    values = {
        "event": AuditEvent.INSTANCES_ACCESSED,
        "action": "R",
        "actor": ADA,
        "what": f"ada opened study {number}.",
        "objects": (AuditObject("study", f"{STUDY}.{number}"), AuditObject("patient", "P-17")),
        **more,
    }
    return AuditEntry(**values)  # type: ignore[arg-type]


def filled(audit: AuditBook, count: int) -> None:
    audit.record_all([an_entry(number) for number in range(count)])


# What goes in comes out


def test_entries_come_back_as_recorded_newest_first(audit: AuditBook, clock: ManualClock) -> None:
    audit.record(an_entry(1))
    clock.advance(5)
    audit.record(
        an_entry(
            2,
            outcome=AuditOutcome.MINOR_FAILURE,
            participants=(Participant("WS1", "10.1.1.9", "destination"),),
        )
    )
    second, first = audit.entries()
    assert (first.sequence, second.sequence) == (1, 2)
    assert first.actor == "ada"
    assert first.address == "10.1.1.7"
    assert first.objects == an_entry(1).objects
    assert second.participants[0].role == "destination"
    assert second.was_refused
    assert second.recorded_at == clock.now()


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        (AuditFilter(), [4, 3, 2, 1]),
        (AuditFilter(actor="bob"), [2]),
        (AuditFilter(object_id=f"{STUDY}.3"), [3]),
        (AuditFilter(object_id="P-17"), [4, 3, 2, 1]),
        (AuditFilter(event=AuditEvent.QUERY), [4]),
        (AuditFilter(only_failures=True), [2]),
        (AuditFilter(containing="STUDY 3"), [3]),
        (AuditFilter(containing="100%"), []),
        (AuditFilter(actor="' OR 1=1 --"), []),
        (AuditFilter(actor="\x00", object_id="\ud800"), []),
        (AuditFilter(containing="\x00"), []),
    ],
)
def test_entries_are_filtered(audit: AuditBook, wanted: AuditFilter, numbers: list[int]) -> None:
    audit.record(an_entry(1))
    bob = Actor("person", "bob", frozenset())
    audit.record(an_entry(2, actor=bob, outcome=AuditOutcome.SERIOUS_FAILURE))
    audit.record(an_entry(3))
    audit.record(an_entry(4, event=AuditEvent.QUERY))
    assert [entry.sequence for entry in audit.entries(wanted)] == numbers


def test_pages_are_turned_by_number(audit: AuditBook) -> None:
    filled(audit, 10)
    first = audit.entries(limit=4)
    second = audit.entries(before=first[-1].sequence, limit=4)
    assert [entry.sequence for entry in first + second] == [10, 9, 8, 7, 6, 5, 4, 3]


def test_an_entry_is_kept_with_its_deed_or_not_at_all(audit: AuditBook, database: Database) -> None:
    def fail_after_recording() -> None:
        with database.write() as connection:
            audit.record(an_entry(1), connection)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_after_recording()
    assert audit.count() == 0
    assert audit.verify().is_whole


def test_strange_texts_become_harmless_lines(audit: AuditBook) -> None:
    """S11."""
    strange = "X\r\n2026-01-01 fake\x1b[2J\x00\u202e\ud800"
    audit.record(an_entry(what=strange, objects=(AuditObject("query", strange, query=strange),)))
    entry = audit.entries()[0]
    for text in (entry.what, entry.objects[0].object_id, entry.objects[0].query):
        assert text.isprintable()
    assert audit.verify().is_whole


# One act, one entry


def test_scrolling_through_a_study_is_one_entry_a_minute(
    audit: AuditBook, clock: ManualClock
) -> None:
    for _ in range(200):
        audit.record_access(ADA, [STUDY])
    assert audit.count() == 1
    assert audit.has_recorded_access(ADA, [STUDY])
    audit.record_access(ADA, [STUDY, STUDY + ".1"])
    assert [thing.object_id for thing in audit.entries()[0].objects] == [STUDY + ".1"]
    audit.record_access(Actor("person", "bob", frozenset()), [STUDY])
    clock.advance(60)
    assert not audit.has_recorded_access(ADA, [STUDY])
    audit.record_access(ADA, [STUDY])
    assert audit.count() == 4


def test_an_access_that_could_not_be_recorded_is_not_taken_as_recorded(
    audit: AuditBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(audit, "_append", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            audit.record_access(ADA, [STUDY])
    audit.record_access(ADA, [STUDY])
    assert audit.count() == 1


def test_r5_accesses_wait_while_the_book_cannot_be_written(
    audit: AuditBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full: images are shown all the same, and who saw them is written down after."""

    def refuse(*_args: object, **_more: object) -> object:
        raise Unavailable("The database did not answer.", why="database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(audit._database, "write", refuse)
        audit.record_access(ADA, [STUDY])
        audit.record_access(ADA, [STUDY + ".1"])
    audit.close()
    first, second = sorted(audit.entries(), key=lambda entry: entry.sequence)
    assert [one.objects[0].object_id for one in (first, second)] == [STUDY, STUDY + ".1"]
    assert "could not be written" in first.what
    assert audit.verify().is_whole


def test_searches_are_recorded_without_their_values(audit: AuditBook) -> None:
    audit.record_query(
        name="WS1",
        address="10.1.1.9",
        level="STUDY",
        keys=(0x00100010, "ModalitiesInStudy"),
        matches=3,
    )
    entry = audit.entries()[0]
    assert entry.event is AuditEvent.QUERY
    assert entry.objects[0].query == "00100010, ModalitiesInStudy"
    assert "3 answers" in entry.what


def test_what_is_recorded_soon_is_there_when_the_book_is_closed(
    audit: AuditBook, database: Database, clock: ManualClock
) -> None:
    for number in range(1200):
        audit.record_soon(an_entry(number))
    audit.close()
    assert AuditBook(database, clock).count() == 1200
    assert audit.verify().is_whole


def test_entries_that_come_soon_after_each_other_are_recorded_together() -> None:
    batches: list[int] = []
    is_recorded = threading.Event()

    def record(batch: Sequence[AuditEntry]) -> None:
        batches.append(len(batch))
        is_recorded.set()

    later = Later(record)
    began = time.monotonic()
    for number in range(40):
        later.put(an_entry(number))
        is_recorded.wait(0.001)
        is_recorded.clear()
    later.flush()
    assert sum(batches) == 40
    assert len(batches) <= (time.monotonic() - began) / DELAY_S + 2


def test_what_comes_while_entries_are_recorded_waits_for_the_next_batch() -> None:
    batches: list[int] = []

    def record(batch: Sequence[AuditEntry]) -> None:
        batches.append(len(batch))
        if len(batches) < 100:
            later.put(an_entry(len(batches)))

    later = Later(record)
    # Not the thread's own batch: who says when it begins.
    with later._state:
        later._waiting += [an_entry(0), an_entry(1)]
    later.flush()
    assert batches == [2]
    assert later.waiting == 1


def test_closing_records_what_comes_while_it_does(
    audit: AuditBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    later, record = audit._later, audit._later._record
    late = [an_entry(number) for number in range(1, 4)]

    def recorded(batch: Sequence[AuditEntry]) -> None:
        # Not by `put`, since its thread would record what the closing leaves behind.
        with later._state:
            later._waiting += [late.pop()] if late else []
        record(batch)

    monkeypatch.setattr(later, "_record", recorded)
    with later._state:
        later._waiting.append(an_entry(0))
    audit.close()
    assert later.waiting == 0
    assert audit.count() == 4


def test_what_cannot_be_recorded_has_been_waiting_all_the_while() -> None:
    """The thread is woken once for it: what it did not see then, nobody would tell it of again."""
    waiting: list[int] = []

    def fail(_batch: Sequence[AuditEntry]) -> None:
        waiting.append(later.waiting)
        raise Unavailable("The database did not answer.")

    later = Later(fail)
    with later._state:
        later._waiting += [an_entry(0), an_entry(1)]
    with pytest.raises(Unavailable):
        later.flush()
    assert waiting == [2]
    assert later.waiting == 2


def test_refusals_are_recorded_once_a_minute(audit: AuditBook, clock: ManualClock) -> None:
    for _ in range(50):
        audit.record_refusal(ADA, "No.", event_type=AuditEventType.USE_OF_RESTRICTED_FUNCTION)
    assert audit.count() == 1
    clock.advance(60)
    audit.record_refusal(ADA, "No.", event_type=AuditEventType.USE_OF_RESTRICTED_FUNCTION)
    assert audit.count() == 2


def test_reading_the_book_is_one_entry_a_minute_for_each_reader(
    audit: AuditBook, clock: ManualClock
) -> None:
    tom, ada = (Actor("person", name, frozenset()) for name in ("tom", "ada"))
    for reader in (tom, tom, ada, tom):
        audit.record_reading(reader)
    clock.advance(60)
    audit.record_reading(tom)
    assert [entry.actor for entry in audit.entries()] == ["tom", "ada", "tom"]


# The chain: S10


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


# The message: PS3.15 A.5


def test_message_has_the_parts_that_the_schema_asks_for(audit: AuditBook) -> None:
    audit.record(
        an_entry(
            1,
            event_type=AuditEventType.NONE,
            objects=(
                AuditObject("study", STUDY, number_of_instances=12),
                AuditObject("patient", "P-17"),
                AuditObject("query", "1.2.840.10008.5.1.4.1.2.2.1", query="00100020"),
            ),
            participants=(Participant("WS1", "ws1.example", "destination"),),
        )
    )
    message = ElementTree.fromstring(to_dicom_audit_xml(audit.entries()[0]))
    assert [child.tag for child in message] == [
        "EventIdentification",
        "ActiveParticipant",
        "ActiveParticipant",
        "AuditSourceIdentification",
        "ParticipantObjectIdentification",
        "ParticipantObjectIdentification",
        "ParticipantObjectIdentification",
    ]
    event = message[0]
    assert event.attrib["EventActionCode"] == "R"
    assert event.attrib["EventOutcomeIndicator"] == "0"
    assert event.attrib["EventDateTime"] == "2026-01-01T07:00:00.000+00:00"
    assert event.find("EventID").attrib == {
        "csd-code": "110103",
        "codeSystemName": "DCM",
        "originalText": "DICOM Instances Accessed",
    }
    who, other = message.findall("ActiveParticipant")
    assert who.attrib == {
        "UserID": "ada",
        "UserIsRequestor": "true",
        "NetworkAccessPointID": "10.1.1.7",
        "NetworkAccessPointTypeCode": "2",
    }
    assert other.attrib["NetworkAccessPointTypeCode"] == "1"
    study, patient, query = message.findall("ParticipantObjectIdentification")
    assert study.attrib["ParticipantObjectID"] == STUDY
    assert study.find("ParticipantObjectIDTypeCode").attrib["csd-code"] == "110180"
    assert study.find("ParticipantObjectDescription/SOPClass").attrib == {"NumberOfInstances": "12"}
    assert patient.attrib["ParticipantObjectTypeCodeRole"] == "1"
    assert query.find("ParticipantObjectQuery").text == "MDAxMDAwMjA="


def test_markup_in_names_stays_text(audit: AuditBook) -> None:
    audit.record(an_entry(what="<b>&", actor=Actor("peer", '"><x/>', frozenset())))
    message = ElementTree.fromstring(to_dicom_audit_xml(audit.entries()[0]))
    assert message.find("ActiveParticipant").attrib["UserID"] == '"><x/>'
