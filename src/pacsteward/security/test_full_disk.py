"""R5: who signs in while the database takes nothing, because the disk is full."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support.full_disk import FullDisk

from pacsteward.base.clock import ManualClock
from pacsteward.base.db import Database
from pacsteward.base.errors import Unavailable
from pacsteward.security import (
    Access,
    AuditBook,
    SecuritySettings,
    SignInFailed,
    TooManyTries,
    audit_later,
    failures_in_memory,
)
from pacsteward.security import access as access_module
from pacsteward.security.actor import Actor
from pacsteward.security.audit_entry import AuditEntry, AuditEvent
from pacsteward.security.failures_in_memory import (
    PLACES_OF_A_SET,
    FailuresInMemory,
    failure_places,
)
from pacsteward.security.sessions_in_memory import (
    ADMINISTRATORS_PLACES,
    PLACES,
    SessionsInMemory,
    session_places,
)

PASSWORD = "correct horse battery"
HERE = "127.0.0.1"


@pytest.fixture
def ada(access: Access) -> str:
    access.add_person("root", PASSWORD, ["administrator"])
    access.add_person("ada", PASSWORD, ["administrator"])
    return "ada"


@pytest.fixture
def disk(
    database: Database, audit: AuditBook, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FullDisk]:
    disk = FullDisk(database, monkeypatch)
    yield disk
    disk.is_full = False
    audit.close()


@pytest.fixture
def other(
    database: Database, clock: ManualClock, access: Access, disk: FullDisk
) -> Iterator[Access]:
    """Give the same people, as another web process knows them."""
    places = session_places(2)
    access.share_memory(places, 0)
    audit = AuditBook(database, clock)
    other = Access(database, clock, audit, SecuritySettings())
    other.share_memory(places, 1)
    failures = failure_places(2)
    access.guard.count_together(failures, 0)
    other.guard.count_together(failures, 1)
    yield other
    disk.is_full = False
    audit.close()


def test_an_administrator_gets_in_whichever_process_answers(
    access: Access, other: Access, ada: str, disk: FullDisk
) -> None:
    disk.is_full = True
    session = access.sign_in(ada, PASSWORD, HERE)
    for process in (access, other):
        visit = process.visit_by_session(session.cookie, HERE)
        assert visit is not None
        assert visit.actor.name == ada
        assert visit.actor.may("people.change")
        assert process.visit_by_session(f"{session.cookie}x", HERE) is None


def test_it_ends_at_sign_out_in_every_process_and_after_half_an_hour(
    access: Access, other: Access, ada: str, clock: ManualClock, disk: FullDisk
) -> None:
    disk.is_full = True
    first, second = (access.sign_in(ada, PASSWORD, HERE) for _ in range(2))
    assert other.visit_by_session(first.cookie, HERE) is not None
    other.sign_out(first.cookie, HERE)
    for process in (access, other):
        assert process.visit_by_session(first.cookie, HERE) is None
        assert process.visit_by_session(second.cookie, HERE) is not None
    clock.advance(SecuritySettings().session_idle_s + 1)
    assert access.visit_by_session(second.cookie, HERE) is None


@pytest.mark.parametrize("end", ["disable", "password", "remove"])
def test_it_ends_with_what_ends_other_sessions(
    access: Access,
    ada: str,
    end: str,
    disk: FullDisk,
) -> None:
    """As soon as that can be written again."""
    disk.is_full = True
    session = access.sign_in(ada, PASSWORD, HERE)
    disk.is_full = False
    assert access.visit_by_session(session.cookie, HERE) is not None
    match end:
        case "disable":
            access.people.set_disabled(ada, is_disabled=True)
        case "password":
            access.people.set_password(ada, "another horse battery")
        case "remove":
            access.people.remove(ada)
    assert access.visit_by_session(session.cookie, HERE) is None


def test_sign_ins_are_in_the_audit_book_when_there_is_room(
    access: Access,
    audit: AuditBook,
    ada: str,
    disk: FullDisk,
) -> None:
    before = audit.count()
    disk.is_full = True
    with pytest.raises(SignInFailed):
        access.sign_in(ada, "wrong", HERE)
    access.sign_out(access.sign_in(ada, PASSWORD, HERE).cookie, HERE)
    disk.is_full = False
    said = [entry.what for entry in reversed(audit.entries(limit=audit.count() - before))]
    assert [what.split(". That was")[0] for what in said] == [
        "A sign-in as ada was refused",
        "ada signed in",
        "ada signed out",
    ]


def test_guessing_is_slowed_all_the_same(
    access: Access, ada: str, disk: FullDisk, clock: ManualClock
) -> None:
    disk.is_full = True
    for _ in range(5):
        assert access.wait_s(ada, HERE) == 0.0
        with pytest.raises(SignInFailed):
            access.sign_in(ada, "wrong", HERE)
    assert access.wait_s(ada, HERE) > 0.0
    clock.advance(16 * 60)
    assert access.wait_s(ada, HERE) == 0.0


def test_an_administrator_gets_in_although_very_many_entries_wait(
    access: Access, audit: AuditBook, ada: str, disk: FullDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_later, "WAITING_MAX", 5)
    monkeypatch.setattr(access_module, "WAITING_MAX", 5)
    disk.is_full = True
    entry = AuditEntry(AuditEvent.APPLICATION_ACTIVITY, "E", Actor("house", "test", frozenset()))
    for _ in range(6):
        audit.record_or_keep(entry, waiting_max=5)
    with pytest.raises(Unavailable):
        audit.record_or_keep(entry, waiting_max=5)
    session = access.sign_in(ada, PASSWORD, HERE)
    assert access.visit_by_session(session.cookie, HERE) is not None


def test_a_workstation_that_names_its_user_gets_in(
    access: Access, audit: AuditBook, ada: str, disk: FullDisk
) -> None:
    before = audit.count()
    disk.is_full = True
    assert access.identify_caller(ada, PASSWORD, HERE, ae_title="READER").name == ada
    with pytest.raises(SignInFailed):
        access.identify_caller(ada, "wrong", HERE, ae_title="READER")
    disk.is_full = False
    said = [entry.what for entry in reversed(audit.entries(limit=audit.count() - before))]
    assert [what.split(". That was")[0] for what in said] == [
        "ada signed in by READER",
        "A sign-in as ada by READER was refused",
    ]


def test_a_workstation_is_refused_while_the_book_is_only_locked(
    access: Access, ada: str, disk: FullDisk
) -> None:
    disk.is_locked = True
    with pytest.raises(Unavailable):
        access.identify_caller(ada, PASSWORD, HERE, ae_title="READER")


def test_guesses_are_counted_whichever_process_they_meet(
    access: Access, other: Access, ada: str, disk: FullDisk
) -> None:
    disk.is_full = True
    for process in (access, other, access, other, access):
        assert [one.wait_s(ada, HERE) for one in (access, other)] == [0.0, 0.0]
        with pytest.raises(SignInFailed):
            process.sign_in(ada, "wrong", HERE)
    assert min(one.wait_s(ada, HERE) for one in (access, other)) > 0.0


def test_guesses_before_the_disk_was_full_count_with_those_after(
    access: Access, ada: str, disk: FullDisk
) -> None:
    for number in range(5):
        disk.is_full = number >= 3
        assert access.wait_s(ada, HERE) == 0.0
        with pytest.raises(SignInFailed):
            access.sign_in(ada, "wrong", HERE)
    assert access.wait_s(ada, HERE) > 0.0


def test_own_slips_are_forgotten_whichever_process_met_them() -> None:
    places = failure_places(2)
    one, two = (FailuresInMemory(places, process, lambda: 5.0) for process in range(2))
    for _ in range(3):
        one.count("pair ada here")
        two.count("pair ada here")
    two.count("address here")
    assert [one.of("pair ada here"), two.of("pair ada here")] == [6, 6]
    two.forget("pair ada here")
    assert [one.of("pair ada here"), two.of("pair ada here")] == [0, 0]
    assert one.of("address here") == 1


def test_a_process_that_begins_anew_still_knows_what_was_guessed() -> None:
    places = failure_places(1)
    FailuresInMemory(places, 0, lambda: 5.0).count("person ada")
    assert FailuresInMemory(places, 0, lambda: 6.0).of("person ada") == 1


def test_what_was_guessed_longest_ago_makes_room_for_what_is_guessed_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(failures_in_memory, "SETS", 1)
    now = [5.0]
    failures = FailuresInMemory(failure_places(1), 0, lambda: now[0])
    for number in range(PLACES_OF_A_SET + 1):
        failures.count(f"person {number}")
        failures.count(f"person {number}")
        now[0] += 1
    counted = [failures.of(f"person {number}") for number in range(PLACES_OF_A_SET + 1)]
    assert counted == [0] + [2] * PLACES_OF_A_SET
    now[0] += failures_in_memory.FORGOTTEN_AFTER.total_seconds()
    assert failures.of(f"person {PLACES_OF_A_SET}") == 0


def test_an_old_session_does_not_keep_its_browser_from_the_sign_in_page(
    access: Access, ada: str, clock: ManualClock, disk: FullDisk
) -> None:
    session = access.sign_in(ada, PASSWORD, HERE)
    clock.advance(86_400)
    disk.is_full = True
    assert access.visit_by_session(session.cookie, HERE) is None


def test_sessions_in_memory_have_a_number() -> None:
    now = [5.0]
    sessions = SessionsInMemory(session_places(2), 1, lambda: now[0])
    for number in range(PLACES - ADMINISTRATORS_PLACES):
        sessions.begin(f"secret {number}", f"person-{number}", bytes(32))
    with pytest.raises(TooManyTries):
        sessions.begin("secret", "one more", bytes(32))
    for number in range(ADMINISTRATORS_PLACES):
        sessions.begin(f"administrator {number}", "root", bytes(32), is_administrator=True)
    with pytest.raises(TooManyTries):
        sessions.begin("secret", "root", bytes(32), is_administrator=True)
    found = sessions.find("secret 7")
    assert found is not None
    assert found.person_name == "person-7"
    now[0] += 3601
    sessions.begin("secret", "one more", bytes(32))
    assert sessions.find("secret 7") is None
