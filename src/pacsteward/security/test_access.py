"""Who is let in by a token, a session or a password, and when no longer."""

from __future__ import annotations

from datetime import timedelta

import pytest

from pacsteward.base.clock import ManualClock
from pacsteward.base.db import Database
from pacsteward.base.errors import Conflict, Forbidden, Invalid, Unavailable
from pacsteward.security import (
    Access,
    AuditBook,
    AuditEvent,
    SecuritySettings,
    SignInFailed,
    TooManyTries,
    hash_of,
)
from pacsteward.security.sign_in import WAITING_MAX, WaitingQueue, waiting_places

PASSWORD = "correct horse battery"
HERE = "127.0.0.1"


@pytest.fixture
def ada(access: Access) -> str:
    access.add_person("root", PASSWORD, ["administrator"])
    access.add_person("ada", PASSWORD, ["radiologist"])
    return "ada"


# Tokens


def test_a_token_is_known_by_its_hash_alone(access: Access, database: Database) -> None:
    text = access.make_token("mirror", ["machine"])
    with database.read() as connection:
        row = connection.exec_driver_sql("SELECT * FROM token").one()
    assert text not in " ".join(map(str, row))
    assert row.token_hash == hash_of(text)
    actor = access.actor_of_token(text, HERE)
    assert actor is not None
    assert (actor.kind, actor.name, actor.address) == ("token", "mirror", HERE)
    assert actor.may("studies.read")
    assert not actor.may("people.change")


def test_a_wrong_token_is_nobody(access: Access) -> None:
    text = access.make_token("mirror", ["machine"])
    for wrong in ("", "pst_", text[:-1], text + "x", text.swapcase(), "\ud800"):
        assert access.actor_of_token(wrong, HERE) is None


def test_a_revoked_token_is_refused_by_every_process_at_once(
    access: Access, database: Database, clock: ManualClock, audit: AuditBook
) -> None:
    text = access.make_token("mirror", ["machine"])
    assert access.actor_of_token(text, HERE) is not None
    elsewhere = Access(database, clock, audit, SecuritySettings())
    elsewhere.tokens.revoke("mirror")
    assert access.actor_of_token(text, HERE) is None


def test_a_token_expires_on_the_second(access: Access, clock: ManualClock) -> None:

    text = access.make_token("mirror", ["machine"], expires_at=clock.now() + timedelta(seconds=90))
    clock.advance(89)
    assert access.actor_of_token(text, HERE) is not None
    clock.advance(1)
    assert access.actor_of_token(text, HERE) is None


def test_a_token_name_is_never_used_twice(access: Access) -> None:
    access.make_token("mirror", ["machine"])
    access.tokens.revoke("mirror")
    with pytest.raises(Conflict):
        access.make_token("Mirror", ["machine"])


def test_use_of_a_token_is_noted_now_and_then(access: Access, clock: ManualClock) -> None:
    text = access.make_token("mirror", ["machine"])
    access.actor_of_token(text, HERE)
    first = access.tokens.all()[0].last_used_at
    clock.advance(10)
    access.actor_of_token(text, HERE)
    assert access.tokens.all()[0].last_used_at == first
    clock.advance(600)
    access.actor_of_token(text, HERE)
    assert access.tokens.all()[0].last_used_at == clock.now()


# Sessions


def test_session_gives_the_person_with_permissions_of_now(access: Access, ada: str) -> None:
    session = access.sign_in(ada, PASSWORD, HERE)
    visit = access.visit_by_session(session.cookie, HERE)
    assert visit is not None
    assert visit.actor.may("studies.read")
    access.people.change_roles(ada, ["auditor"])
    visit = access.visit_by_session(session.cookie, HERE)
    assert visit is not None
    assert not visit.actor.may("studies.read")
    assert visit.actor.may("audit.read")


def test_each_sign_in_makes_a_new_session(access: Access, ada: str) -> None:
    """S12: nothing that somebody planted before becomes a session."""
    first, second = (access.sign_in(ada, PASSWORD, HERE) for _ in range(2))
    assert first.cookie != second.cookie
    assert first.form_token != second.form_token
    assert access.visit_by_session("planted", HERE) is None


def test_session_is_kept_as_a_hash(access: Access, ada: str, database: Database) -> None:
    session = access.sign_in(ada, PASSWORD, HERE)
    with database.read() as connection:
        row = connection.exec_driver_sql("SELECT * FROM session").one()
    assert session.cookie not in " ".join(map(str, row))


def test_session_ends_when_it_is_not_used(access: Access, ada: str, clock: ManualClock) -> None:
    session = access.sign_in(ada, PASSWORD, HERE)
    for _ in range(3):
        clock.advance(29 * 60)
        assert access.visit_by_session(session.cookie, HERE) is not None
    clock.advance(30 * 60)
    assert access.visit_by_session(session.cookie, HERE) is None


def test_session_ends_after_its_length_however_busy(
    access: Access, ada: str, clock: ManualClock
) -> None:
    session = access.sign_in(ada, PASSWORD, HERE)
    for _ in range(12 * 6 - 1):
        clock.advance(600)
        assert access.visit_by_session(session.cookie, HERE) is not None
    clock.advance(600)
    assert access.visit_by_session(session.cookie, HERE) is None


def test_r5_who_is_inside_stays_inside_while_the_database_takes_nothing(
    access: Access, ada: str, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full: readers who have signed in, and machines with tokens, go on reading."""
    session = access.sign_in(ada, PASSWORD, HERE)
    token = access.tokens.make("viewer", ["radiologist"])

    def refuse(*_args: object, **_more: object) -> object:
        raise Unavailable("The database did not answer.", why="database or disk is full")

    monkeypatch.setattr(access._database, "write", refuse)
    for _ in range(2):
        clock.advance(120)
        assert access.visit_by_session(session.cookie, HERE) is not None
        assert access.actor_of_token(token, HERE) is not None


def test_no_clock_revives_a_session(access: Access, ada: str, clock: ManualClock) -> None:
    """R8: once it has ended it stays so, also when the clock is set back."""
    session = access.sign_in(ada, PASSWORD, HERE)
    clock.advance(86_400)
    assert access.visit_by_session(session.cookie, HERE) is None
    clock.advance(-86_400)
    assert access.visit_by_session(session.cookie, HERE) is None


class Jumping(ManualClock):
    """A clock whose hands can be moved while the seconds go on as ever."""

    def jump(self, days: float) -> None:
        super().jump(days * 86_400)


def jumping(database: Database) -> tuple[Jumping, Access]:
    clock = Jumping()
    return clock, Access(database, clock, AuditBook(database, clock), SecuritySettings())


def test_r8_a_clock_that_jumps_signs_nobody_out(
    access: Access, ada: str, database: Database
) -> None:
    clock, access = jumping(database)
    session = access.sign_in(ada, PASSWORD, HERE)
    for days in (1, -1, -1, 1):
        clock.jump(days)
        clock.advance(600)
        assert access.visit_by_session(session.cookie, HERE) is not None


def test_r8_a_clock_that_is_set_back_lets_nobody_in_again(
    access: Access, ada: str, database: Database
) -> None:
    """Nobody looked at the session between its end and the jump."""
    clock, access = jumping(database)
    session = access.sign_in(ada, PASSWORD, HERE)
    clock.advance(7200)
    clock.jump(-1)
    assert access.visit_by_session(session.cookie, HERE) is None


def test_r8_a_clock_that_is_set_back_before_a_restart_lets_nobody_in_again(
    access: Access, ada: str, database: Database
) -> None:
    clock, access = jumping(database)
    session = access.sign_in(ada, PASSWORD, HERE)
    clock.advance(7200)
    clock.jump(-1)
    restarted = Jumping(clock.now())
    again = Access(database, restarted, AuditBook(database, restarted), SecuritySettings())
    assert again.visit_by_session(session.cookie, HERE) is None


@pytest.mark.parametrize("days", [-1, 1])
def test_r8_processes_that_began_before_and_after_a_jump_agree(
    access: Access, ada: str, database: Database, days: int
) -> None:
    """A second web process begins when it is needed, or again after a crash."""
    clock, first = jumping(database)
    clock.jump(days)
    second = Access(database, clock, AuditBook(database, clock), SecuritySettings())
    for here, there in ((first, second), (second, first)):
        session = here.sign_in(ada, PASSWORD, HERE)
        assert there.visit_by_session(session.cookie, HERE) is not None
        assert here.visit_by_session(session.cookie, HERE) is not None


def test_sign_out_ends_the_session_in_every_process(
    access: Access, ada: str, database: Database, clock: ManualClock, audit: AuditBook
) -> None:
    elsewhere = Access(database, clock, audit, SecuritySettings())
    session = access.sign_in(ada, PASSWORD, HERE)
    assert elsewhere.visit_by_session(session.cookie, HERE) is not None
    access.sign_out(session.cookie, HERE)
    assert elsewhere.visit_by_session(session.cookie, HERE) is None


def test_disabling_ends_sessions_and_keeps_out(access: Access, ada: str) -> None:
    session = access.sign_in(ada, PASSWORD, HERE)
    access.people.set_disabled(ada, is_disabled=True)
    assert access.visit_by_session(session.cookie, HERE) is None
    with pytest.raises(SignInFailed):
        access.sign_in(ada, PASSWORD, HERE)


def test_new_password_ends_the_other_sessions(access: Access, ada: str) -> None:
    mine, other = (access.sign_in(ada, PASSWORD, HERE) for _ in range(2))
    visit = access.visit_by_session(mine.cookie, HERE)
    assert visit is not None
    access.change_own_password(
        visit.actor,
        PASSWORD,
        "another long one",
        "another long one",
        keep_session=hash_of(mine.cookie),
    )
    assert access.visit_by_session(mine.cookie, HERE) is not None
    assert access.visit_by_session(other.cookie, HERE) is None
    access.sign_in(ada, "another long one", HERE)


def test_own_password_needs_the_present_one(access: Access, ada: str) -> None:
    session = access.sign_in(ada, PASSWORD, HERE)
    visit = access.visit_by_session(session.cookie, HERE)
    assert visit is not None
    with pytest.raises(Forbidden):
        access.change_own_password(
            visit.actor, "wrong wrong wrong", "another long one", "another long one"
        )
    with pytest.raises(Invalid):
        access.change_own_password(visit.actor, PASSWORD, "another long one", "yet another one")


def test_signing_in_and_out_is_in_the_audit_book(
    access: Access, ada: str, audit: AuditBook
) -> None:
    with pytest.raises(SignInFailed):
        access.sign_in(ada, "wrong", HERE)
    session = access.sign_in(ada, PASSWORD, HERE)
    access.sign_out(session.cookie, HERE)
    found = [
        (entry.event_type.name, entry.was_refused)
        for entry in audit.entries()
        if entry.event is AuditEvent.USER_AUTHENTICATION
    ]
    assert found == [("LOGOUT", False), ("LOGIN", False), ("LOGIN", True)]


# Guessing: S12


def test_guessing_is_slowed_within_ten_tries(access: Access, ada: str) -> None:
    waits = []
    for _ in range(10):
        waits.append(access.wait_s(ada, "10.0.0.66"))
        with pytest.raises(SignInFailed) as failed:
            access.sign_in(ada, "wrong", "10.0.0.66")
    assert waits[0] == 0
    assert waits[-1] >= 1
    assert failed.value.is_too_many


def test_guessing_many_names_from_one_address_is_slowed(access: Access, ada: str) -> None:
    for number in range(9):
        with pytest.raises(SignInFailed):
            access.sign_in(f"user{number}", "wrong", "10.0.0.66")
    assert access.wait_s("user9", "10.0.0.66") >= 1
    assert access.wait_s("user9", "10.0.0.7") == 0


def test_guessing_one_name_from_many_addresses_is_slowed(access: Access, ada: str) -> None:
    for number in range(9):
        with pytest.raises(SignInFailed):
            access.sign_in(ada, "wrong", f"10.0.0.{number}")
    assert access.wait_s(ada, "10.0.0.99") >= 1


def test_strangers_do_not_lock_the_real_person_out(access: Access, ada: str) -> None:
    device = access.sign_in(ada, PASSWORD, HERE).device
    for _ in range(60):
        with pytest.raises(SignInFailed):
            access.sign_in(ada, "wrong", "10.0.0.66")
    # In the own browser nothing has changed; in a new one it takes a moment, and works.
    assert access.wait_s(ada, HERE, device=device) == 0
    assert 0 < access.wait_s(ada, "10.0.0.7") <= 8
    access.sign_in(ada, PASSWORD, "10.0.0.7")


def test_a_known_browser_cannot_guess_either(access: Access, ada: str) -> None:
    device = access.sign_in(ada, PASSWORD, HERE).device
    for _ in range(9):
        with pytest.raises(SignInFailed):
            access.sign_in(ada, "wrong", HERE, device=device)
    assert access.wait_s(ada, HERE, device=device) >= 1


def test_another_persons_browser_is_a_strangers(access: Access, ada: str) -> None:
    device = access.sign_in("root", PASSWORD, HERE).device
    for _ in range(9):
        with pytest.raises(SignInFailed):
            access.sign_in(ada, "wrong", HERE, device=device)
    assert access.wait_s(ada, HERE, device=device) >= 1


def test_failures_are_forgotten_after_a_while(access: Access, ada: str, clock: ManualClock) -> None:
    for _ in range(9):
        with pytest.raises(SignInFailed):
            access.sign_in(ada, "wrong", HERE)
    clock.advance(16 * 60)
    assert access.wait_s(ada, HERE) == 0


def test_names_of_any_shape_can_be_tried(access: Access, ada: str) -> None:
    for name in ("", "x" * 10_000, "a\x00b", "\ud800", "'; DROP TABLE person; --", "\r\nfake"):
        with pytest.raises(SignInFailed):
            access.sign_in(name, "wrong", HERE)


def test_those_who_wait_are_counted_in_all_processes_together() -> None:
    places = waiting_places(2)
    one, other = WaitingQueue(places, 0), WaitingQueue(places, 1)
    taken = [one.enter(HERE), one.enter(HERE), other.enter(HERE), other.enter(HERE)]
    for queue in (one, other):
        with pytest.raises(TooManyTries):
            queue.enter(HERE)
    elsewhere = one.enter("192.0.2.9")
    other.leave(taken[2])
    one.enter(HERE)
    # One that begins anew after a crash leaves nobody in the queue.
    WaitingQueue(places, 0)
    assert list(places[: 2 * WAITING_MAX]).count(0) == 2 * WAITING_MAX - 1
    assert elsewhere != taken[0]


@pytest.mark.parametrize("address", [HERE, "192.0.2.9"])
def test_a_process_that_does_not_go_on_keeps_nobody_waiting(address: str) -> None:
    """It was stopped, or has died while those who start it again make a pause."""
    now = [1000.0]
    places = waiting_places(2)
    stopped, other = (WaitingQueue(places, number, lambda: now[0]) for number in range(2))
    for number in range(WAITING_MAX):
        stopped.enter(HERE if number < 4 else f"198.51.100.{number}")
    now[0] += 59.0
    with pytest.raises(TooManyTries):
        other.enter(address)
    now[0] += 2.0
    for _ in range(4):
        other.enter(address)
    with pytest.raises(TooManyTries):
        other.enter(address)


def test_the_queue_has_an_end_for_all_processes_together() -> None:
    places = waiting_places(2)
    queues = WaitingQueue(places, 0), WaitingQueue(places, 1)
    for number in range(WAITING_MAX):
        queues[number % 2].enter(f"192.0.2.{number}")
    for queue in queues:
        with pytest.raises(TooManyTries):
            queue.enter("198.51.100.1")
