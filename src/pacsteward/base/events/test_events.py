"""The promises of the fact log and of its dispatcher, on both databases."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from sqlalchemy import insert, select, text, update

from pacsteward.base.clock import ManualClock
from pacsteward.base.db import Database, open_database
from pacsteward.base.errors import NotFound, Unavailable
from pacsteward.base.events import (
    FACT,
    FACT_CURSOR,
    Dispatcher,
    Fact,
    FactLog,
    Position,
    Subscriber,
    cursors,
    skip,
)
from pacsteward.base.events.dispatch import _Runner, register, settle_after_move


@dataclass(frozen=True, slots=True)
class StudyArrived(Fact):
    study_instance_uid: str
    sop_instance_uids: tuple[str, ...] = ()
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class PeerMoved(Fact):
    ae_title: str


class Listener:
    """Remembers what it was told; fails as long as it is told to."""

    def __init__(self, name: str, *facts: type[Fact]) -> None:
        self.heard: list[Fact] = []
        self.error: Exception | None = None
        self.subscriber = Subscriber(name, facts, self.handle)

    def handle(self, fact: Fact) -> None:
        if self.error is not None:
            raise self.error
        self.heard.append(fact)


def append(database: Database, *facts: Fact) -> None:
    with database.write() as connection:
        FactLog().append(connection, *facts)


def arrived(*numbers: int) -> list[Fact]:
    return [StudyArrived(f"1.2.{number}") for number in numbers]


def wait_until(is_true: Callable[[], bool], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_true():
        assert time.monotonic() < deadline, "It did not happen in time."
        time.sleep(0.01)


def test_fact_is_named_after_its_class_and_cannot_have_a_name_of_its_own() -> None:
    assert StudyArrived.name == "study_arrived"
    with pytest.raises(TypeError, match="field called name"):

        @dataclass(frozen=True, slots=True)
        class PersonNamed(Fact):
            name: str  # type: ignore[misc]


def test_fact_comes_back_as_it_was(database: Database, clock: ManualClock) -> None:
    fact = StudyArrived("1.2.3", ("1.2.3.1", "1.2.3.2"), 17)
    listener = Listener("route", StudyArrived)
    append(database, fact, PeerMoved("CT1"))
    Dispatcher(database, [listener.subscriber], clock=clock).drain()
    assert listener.heard == [fact]


def test_fact_of_another_version_can_still_be_read() -> None:
    body = {"study_instance_uid": "1.2.3", "dropped_since": [1]}
    assert StudyArrived.from_body(body) == StudyArrived("1.2.3")


def test_fact_lives_and_dies_with_its_transaction(database: Database) -> None:
    def append_and_fail() -> None:
        with database.write() as connection:
            FactLog().append(connection, *arrived(1))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        append_and_fail()
    append(database, *arrived(2))
    with database.read() as connection:
        entries = FactLog().after(connection, Position())
    assert [entry.body for entry in entries] == [
        '{"study_instance_uid":"1.2.2","sop_instance_uids":[],"size_bytes":null}'
    ]


def test_facts_are_told_in_order_once_and_to_each_subscriber(
    database: Database, clock: ManualClock
) -> None:
    route, board = Listener("route", StudyArrived), Listener("board", StudyArrived, PeerMoved)
    dispatcher = Dispatcher(database, [route.subscriber, board.subscriber], clock=clock)
    many = arrived(*range(450))
    append(database, *many)
    append(database, PeerMoved("CT1"))
    dispatcher.drain()
    dispatcher.drain()
    assert route.heard == many
    assert board.heard == [*many, PeerMoved("CT1")]


def test_cursor_survives_the_process(database: Database, clock: ManualClock) -> None:
    first, second = Listener("route", StudyArrived), Listener("route", StudyArrived)
    append(database, *arrived(1, 2))
    Dispatcher(database, [first.subscriber], clock=clock).drain()
    append(database, *arrived(3))
    Dispatcher(database, [second.subscriber], clock=clock).drain()
    assert second.heard == arrived(3)


def test_failing_subscriber_holds_back_nobody_else_and_is_seen(
    database: Database, clock: ManualClock
) -> None:
    bad, good = Listener("bad", StudyArrived), Listener("good", StudyArrived)
    bad.error = Unavailable("Peer CT1 did not answer.")
    dispatcher = Dispatcher(database, [bad.subscriber, good.subscriber], clock=clock)
    append(database, *arrived(1, 2))
    dispatcher.drain()
    assert good.heard == arrived(1, 2)
    seen = {view.subscriber: view for view in cursors(database, [bad.subscriber, good.subscriber])}
    assert (seen["bad"].behind, seen["bad"].attempts) == (2, 1)
    assert seen["bad"].last_error == "study_arrived 1: Peer CT1 did not answer."
    assert seen["bad"].retry_at is not None
    assert (seen["good"].behind, seen["good"].attempts) == (0, 0)
    bad.error = None
    dispatcher.drain()
    assert bad.heard == [], "It was asked again before its pause was over."
    clock.advance(1)
    dispatcher.drain()
    assert bad.heard == arrived(1, 2)
    (view,) = cursors(database, [bad.subscriber])
    assert (view.behind, view.attempts, view.last_error, view.retry_at) == (0, 0, "", None)


def test_pauses_after_failures_grow_to_five_minutes(database: Database, clock: ManualClock) -> None:
    bad = Listener("bad", StudyArrived)
    bad.error = Unavailable("No.")
    dispatcher = Dispatcher(database, [bad.subscriber], clock=clock)
    append(database, *arrived(1))
    pauses = []
    for _ in range(11):
        dispatcher.drain()
        (view,) = cursors(database, [bad.subscriber])
        assert view.retry_at is not None
        pauses.append((view.retry_at - clock.now()).total_seconds())
        clock.advance(pauses[-1])
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


def test_words_of_a_foreign_error_are_not_kept(database: Database, clock: ManualClock) -> None:
    bad = Listener("bad", StudyArrived)
    bad.error = KeyError("DOE^JANE")
    append(database, *arrived(1))
    Dispatcher(database, [bad.subscriber], clock=clock).drain()
    (view,) = cursors(database, [bad.subscriber])
    assert view.last_error == "study_arrived 1: KeyError"


def test_fact_that_cannot_be_read_stops_only_who_wants_it_until_it_is_skipped(
    database: Database, clock: ManualClock
) -> None:
    listener = Listener("route", StudyArrived)
    dispatcher = Dispatcher(database, [listener.subscriber], clock=clock)
    dispatcher.drain()
    with database.write() as connection:
        connection.execute(
            insert(FACT).values(name="study_arrived", at=clock.now(), body='{"other": 1}')
        )
    append(database, *arrived(2))
    dispatcher.drain()
    assert listener.heard == []
    assert skip(database, listener.subscriber) == "study_arrived 1"
    clock.advance(1)
    dispatcher.drain()
    assert listener.heard == arrived(2)
    with pytest.raises(NotFound):
        skip(database, listener.subscriber)


def test_subscriber_that_joins_later_hears_only_what_happens_from_then_on(
    database: Database, clock: ManualClock
) -> None:
    """Nobody wants last month's studies forwarded by a room that was installed today."""
    old, new = Listener("old", StudyArrived), Listener("new", StudyArrived)
    append(database, *arrived(1))
    Dispatcher(database, [old.subscriber], clock=clock).drain()
    assert old.heard == arrived(1), "In a new house nothing is lost before the first dispatcher."
    Dispatcher(database, [old.subscriber, new.subscriber], clock=clock).drain()
    append(database, *arrived(2))
    Dispatcher(database, [old.subscriber, new.subscriber], clock=clock).drain()
    assert new.heard == arrived(2)


def test_handler_may_append_facts_that_others_hear(database: Database, clock: ManualClock) -> None:
    heard = Listener("heard", PeerMoved)

    def answer(fact: Fact) -> None:
        append(database, PeerMoved(fact.study_instance_uid))  # type: ignore[attr-defined]

    append(database, *arrived(1))
    answering = Subscriber("answering", (StudyArrived,), answer)
    Dispatcher(database, [heard.subscriber, answering], clock=clock).drain()
    assert heard.heard == [PeerMoved("1.2.1")]


def test_two_subscribers_of_one_name_are_refused(database: Database) -> None:
    with pytest.raises(ValueError, match="same name"):
        Dispatcher(database, [Listener("a").subscriber, Listener("a").subscriber])


def test_started_dispatcher_hears_of_new_facts_by_itself_and_ends(database: Database) -> None:
    listener = Listener("route", StudyArrived)
    dispatcher = Dispatcher(database, [listener.subscriber])
    dispatcher.start()
    append(database, *arrived(1))
    wait_until(lambda: listener.heard == arrived(1))
    append(database, *arrived(2))
    wait_until(lambda: listener.heard == arrived(1, 2))
    dispatcher.stop()
    assert not [thread for thread in dispatcher._threads if thread.is_alive()]


def test_subscriber_that_the_database_failed_goes_on_before_anything_else_happens(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    listener = Listener("route", StudyArrived)
    runner = _Runner(Dispatcher(sqlite_database, [listener.subscriber]), listener.subscriber)
    real, failures = _Runner._keep, iter([Unavailable("The database is locked.")])

    def keep(runner: _Runner) -> None:
        for failure in failures:
            raise failure
        real(runner)

    monkeypatch.setattr(_Runner, "_keep", keep)
    register(sqlite_database, ["route"])
    append(sqlite_database, *arrived(1))
    ended = threading.Event()
    thread = threading.Thread(target=runner.run, args=(ended,), daemon=True)
    thread.start()
    # Heard once more, since the first time could not be written down; nobody tells it of news.
    wait_until(lambda: listener.heard == arrived(1, 1))
    ended.set()
    runner.news.set()
    thread.join()


def test_second_dispatcher_stands_by_and_takes_over(database: Database) -> None:
    first, second = Listener("route", StudyArrived), Listener("route", StudyArrived)
    dispatchers = [Dispatcher(database, [one.subscriber]) for one in (first, second)]
    dispatchers[0].start()
    append(database, *arrived(1))
    wait_until(lambda: first.heard == arrived(1))
    dispatchers[1].start()
    append(database, *arrived(2))
    wait_until(lambda: first.heard == arrived(1, 2))
    assert second.heard == []
    dispatchers[0].stop()
    append(database, *arrived(3))
    wait_until(lambda: second.heard == arrived(3))
    dispatchers[1].stop()


def test_slow_subscriber_holds_back_nobody_else(database: Database) -> None:
    release = threading.Event()
    slow = Subscriber("slow", (StudyArrived,), lambda _fact: release.wait(10) and None)
    quick = Listener("quick", StudyArrived)
    dispatcher = Dispatcher(database, [slow, quick.subscriber])
    dispatcher.start()
    append(database, *arrived(1))
    wait_until(lambda: quick.heard == arrived(1))
    release.set()
    dispatcher.stop()


def test_cursor_passes_facts_of_others_without_writing_each_time(
    database: Database, clock: ManualClock
) -> None:
    listener = Listener("route", PeerMoved)
    dispatcher = Dispatcher(database, [listener.subscriber], clock=clock)
    dispatcher.drain()
    append(database, *arrived(*range(10)))
    dispatcher.drain()
    assert _position(database, "route") == 0
    append(database, *arrived(*range(1000)))
    dispatcher.drain()
    assert _position(database, "route") == 1010


def test_late_commit_is_not_skipped(postgres_database: Database, clock: ManualClock) -> None:
    """A slow transaction takes position 1, a quick one position 2 and commits first."""
    database = postgres_database
    listener = Listener("route", StudyArrived)
    dispatcher = Dispatcher(database, [listener.subscriber], clock=clock)
    dispatcher.drain()
    with database.write() as slow:
        FactLog().append(slow, *arrived(1))
        append(database, *arrived(2))
        dispatcher.drain()
        assert listener.heard == [], "Fact 2 must wait for what may still come before it."
    dispatcher.drain()
    assert listener.heard == arrived(1, 2)


def test_database_moved_to_another_server_loses_and_forgets_nothing(
    postgres_database: Database, clock: ManualClock
) -> None:
    """A restored dump has transaction numbers that lie in the future of its new server."""
    database = postgres_database
    done, late = Listener("done", StudyArrived), Listener("late", StudyArrived)
    Dispatcher(database, [done.subscriber, late.subscriber], clock=clock).drain()
    append(database, *arrived(1))
    Dispatcher(database, [done.subscriber, late.subscriber], clock=clock).drain()
    append(database, *arrived(2))
    Dispatcher(database, [done.subscriber], clock=clock).drain()
    assert not settle_after_move(database), "Nothing to do on its own server."
    with database.write() as connection:
        for table in (FACT, FACT_CURSOR):
            connection.execute(
                update(table).values(transaction_number=table.c.transaction_number + 10**9)
            )
    append(database, *arrived(3))
    assert settle_after_move(database)
    assert not settle_after_move(database)
    Dispatcher(database, [done.subscriber, late.subscriber], clock=clock).drain()
    assert late.heard == arrived(1, 2, 3)
    assert [fact for fact in done.heard if fact in arrived(3)] == arrived(3)


def test_dispatcher_comes_back_when_the_database_does(
    postgres_database: Database, postgres_server: str
) -> None:
    """Its connections are cut off, as by a restart of the server."""
    database = postgres_database
    listener = Listener("route", StudyArrived)
    dispatcher = Dispatcher(database, [listener.subscriber])
    dispatcher.start()
    append(database, *arrived(1))
    wait_until(lambda: listener.heard == arrived(1))
    other = open_database(postgres_server)
    with other.write() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
                "WHERE datname = :name"
            ),
            {"name": database.engine.url.database},
        )
    other.close()
    append(database, *arrived(2))
    wait_until(lambda: arrived(2)[0] in listener.heard)
    dispatcher.stop()


def _position(database: Database, subscriber: str) -> int:
    with database.read() as connection:
        return int(
            connection.execute(
                select(FACT_CURSOR.c.position).where(FACT_CURSOR.c.subscriber == subscriber)
            ).scalar_one()
        )
