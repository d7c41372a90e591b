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
    sign_in,
)
from pacsteward.security import access as access_module
from pacsteward.security.actor import Actor
from pacsteward.security.audit_entry import AuditEntry, AuditEvent
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
    yield other
    disk.is_full = False
    audit.close()


def test_an_administrator_gets_in_whichever_process_answers(
    access: Access, other: Access, ada: str, disk: FullDisk
) -> None:
    disk.is_full = True
    session = access.sign_in(ada, PASSWORD, HERE)
    for process in (access, other):
        actor = process.actor_of_session(session.cookie, HERE)
        assert actor is not None
        assert actor.name == ada
        assert actor.may("people.change")
        assert process.actor_of_session(f"{session.cookie}x", HERE) is None


def test_it_ends_at_sign_out_in_every_process_and_after_half_an_hour(
    access: Access, other: Access, ada: str, clock: ManualClock, disk: FullDisk
) -> None:
    disk.is_full = True
    first, second = (access.sign_in(ada, PASSWORD, HERE) for _ in range(2))
    assert other.actor_of_session(first.cookie, HERE) is not None
    other.sign_out(first.cookie, HERE)
    for process in (access, other):
        assert process.actor_of_session(first.cookie, HERE) is None
        assert process.actor_of_session(second.cookie, HERE) is not None
    clock.advance(SecuritySettings().session_idle_s + 1)
    assert access.actor_of_session(second.cookie, HERE) is None


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
    assert access.actor_of_session(session.cookie, HERE) is not None
    match end:
        case "disable":
            access.people.set_disabled(ada, is_disabled=True)
        case "password":
            access.people.set_password(ada, "another horse battery")
        case "remove":
            access.people.remove(ada)
    assert access.actor_of_session(session.cookie, HERE) is None


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
    assert access.actor_of_session(session.cookie, HERE) is not None


def test_what_was_guessed_longest_ago_makes_room_for_what_is_guessed_now(
    access: Access, ada: str, disk: FullDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sign_in, "UNWRITTEN_MAX", 20)
    disk.is_full = True
    for number in range(30):
        with pytest.raises(SignInFailed):
            access.sign_in(f"nobody-{number}", "wrong", f"192.0.2.{number}")
    for _ in range(5):
        with pytest.raises(SignInFailed):
            access.sign_in(ada, "wrong", HERE)
    assert access.wait_s(ada, HERE) > 0.0


def test_an_old_session_does_not_keep_its_browser_from_the_sign_in_page(
    access: Access, ada: str, clock: ManualClock, disk: FullDisk
) -> None:
    session = access.sign_in(ada, PASSWORD, HERE)
    clock.advance(86_400)
    disk.is_full = True
    assert access.actor_of_session(session.cookie, HERE) is None


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
