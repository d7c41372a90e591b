"""What is put into the audit book comes out of it, and what is one act is one entry."""

from __future__ import annotations

import pytest

from pacsteward.base.clock import ManualClock
from pacsteward.base.db import Database
from pacsteward.base.errors import Unavailable
from pacsteward.security import (
    Actor,
    AuditBook,
    AuditEvent,
    AuditEventType,
    AuditFilter,
    AuditObject,
    AuditOutcome,
    Participant,
    audit_rows,
)
from pacsteward.security.test_support import ADA, STUDY, an_entry, filled

FIND = "1.2.840.10008.5.1.4.1.2.2.1"

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
    ("event", "outcome", "word"),
    [
        (AuditEvent.INSTANCES_TRANSFERRED, AuditOutcome.SUCCESS, "done"),
        (AuditEvent.INSTANCES_TRANSFERRED, AuditOutcome.MINOR_FAILURE, "failed"),
        (AuditEvent.QUERY, AuditOutcome.SERIOUS_FAILURE, "failed"),
        (AuditEvent.USER_AUTHENTICATION, AuditOutcome.MINOR_FAILURE, "refused"),
        (AuditEvent.SECURITY_ALERT, AuditOutcome.MINOR_FAILURE, "refused"),
    ],
)
def test_what_failed_is_told_from_what_somebody_was_refused(
    audit: AuditBook, event: AuditEvent, outcome: AuditOutcome, word: str
) -> None:
    audit.record(an_entry(event=event, outcome=outcome))
    assert audit.entries()[0].outcome_word == word


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
        patched.setattr(audit_rows, "append", lambda *_: 1 / 0)
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
    keys = ("PatientID (0010,0020)", "ModalitiesInStudy (0008,0061)")
    audit.record_query(ADA, level="STUDY", keys=keys, matches=3, asked=FIND)
    audit.record_query(ADA, level="SERIES", keys=(), matches=1)
    second, first = audit.entries()
    assert {one.event for one in (first, second)} == {AuditEvent.QUERY}
    assert first.objects == (AuditObject("query", FIND, query=", ".join(keys)),)
    assert first.what == f"ada searched at STUDY level by {', '.join(keys)}: 3 answers."
    assert second.objects == (AuditObject("query", "SERIES", query="no keys"),)
    assert second.what == "ada searched at SERIES level by nothing: 1 answer."


def test_what_is_recorded_soon_is_there_when_the_book_is_closed(
    audit: AuditBook, database: Database, clock: ManualClock
) -> None:
    for number in range(1200):
        audit.record_soon(an_entry(number))
    audit.close()
    assert AuditBook(database, clock).count() == 1200
    assert audit.verify().is_whole


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
