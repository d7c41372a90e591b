"""Looks: one state, an end in time, and a connection that works, whatever happened to the last."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import event, insert

from pacsteward.base.clock import ManualClock
from pacsteward.base.db import Database, was_stopped, wire
from pacsteward.base.db.look import KEPT_MAX
from pacsteward.base.errors import Unavailable, WouldWait
from pacsteward.base.events.tables import FACT

COUNT = "SELECT count(*) FROM fact"

ENDLESS = {
    True: "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n",
    False: "SELECT pg_sleep(60)",
}


def add_fact(database: Database) -> None:
    with database.write() as connection:
        connection.execute(insert(FACT).values(name="Seen", at=ManualClock().now(), body="{}"))


def test_a_look_sees_one_state_and_the_next_one_what_is_new(database: Database) -> None:
    with database.look() as look:
        assert look.rows(COUNT) == [(0,)]
        add_fact(database)
        assert look.rows(COUNT) == [(0,)]
    with database.look() as look:
        assert look.rows(COUNT) == [(1,)]


def test_looks_at_once_do_not_share_a_connection(database: Database) -> None:
    looks = [database.look() for _ in range(KEPT_MAX + 2)]
    opened = [look.__enter__() for look in looks]
    assert len({id(look.driver) for look in opened}) == len(looks)
    for look in looks:
        look.__exit__(None, None, None)
    with database.look() as look:
        assert look.rows(COUNT) == [(0,)]


def test_a_look_that_takes_too_long_is_stopped(database: Database) -> None:
    with (
        pytest.raises(Unavailable) as stopped,
        database.look(timeout_s=0.05) as look,
    ):
        look.rows(ENDLESS[database.is_sqlite])
    assert was_stopped(stopped.value)
    # The limit was that look's alone.
    with database.look() as look:
        assert look.rows(COUNT) == [(0,)]


def test_a_look_that_failed_leaves_nothing_behind(database: Database) -> None:
    with pytest.raises(Unavailable) as failed, database.look() as look:
        look.rows("SELECT nothing FROM nowhere")
    assert not was_stopped(failed.value)
    with database.look() as look:
        assert look.rows(COUNT) == [(0,)]


def test_a_look_finds_the_database_again(postgres_database: Database) -> None:
    with postgres_database.look() as look:
        ((process,),) = look.rows("SELECT pg_backend_pid()")
    with postgres_database.write() as connection:
        connection.exec_driver_sql(f"SELECT pg_terminate_backend({process})")
    with postgres_database.look() as look:
        ((other,),) = look.rows("SELECT pg_backend_pid()")
    assert other != process


def test_a_glance_sees_what_is_there_now(database: Database) -> None:
    assert [database.glance(COUNT, timeout_s=limit) for limit in (None, 5.0)] == [[(0,)], [(0,)]]
    add_fact(database)
    assert [database.glance(COUNT, timeout_s=limit) for limit in (None, 5.0)] == [[(1,)], [(1,)]]


def test_a_glance_that_takes_too_long_is_stopped_and_not_tried_again(database: Database) -> None:
    assert database.glance(COUNT, timeout_s=0.05) == [(0,)]
    with pytest.raises(Unavailable) as stopped:
        database.glance(ENDLESS[database.is_sqlite], timeout_s=0.05)
    assert was_stopped(stopped.value)
    assert database.glance(COUNT, timeout_s=0.05) == [(0,)]


def test_a_glance_finds_the_database_again(postgres_database: Database) -> None:
    ((process,),) = postgres_database.glance("SELECT pg_backend_pid()")
    with postgres_database.write() as connection:
        connection.exec_driver_sql(f"SELECT pg_terminate_backend({process})")
    ((other,),) = postgres_database.glance("SELECT pg_backend_pid()")
    assert other != process


def test_a_near_database_answers_at_once(database: Database) -> None:
    # Whoever may not wait does not connect either.
    database.glance(COUNT)
    assert database.is_near
    add_fact(database)
    assert database.at_once(COUNT, within_s=1) == [(1,)]


def test_who_may_not_wait_is_not_kept_waiting(database: Database) -> None:
    database.glance(COUNT)
    with pytest.raises(WouldWait):
        database.at_once(ENDLESS[database.is_sqlite], within_s=0.01)
    # A server that is slow is left alone for a while; the thread that asks instead is answered.
    assert database.is_near is database.is_sqlite
    assert database.glance(COUNT) == [(0,)]


def test_an_embedded_database_looks_at_the_clock_after_a_few_rows_and_keeps_its_connection(
    sqlite_database: Database,
) -> None:
    """On a slow disk each row may take as long as an event loop has for the whole question."""
    sqlite_database.glance(COUNT)
    assert sqlite_database.at_once(first_numbers(2), within_s=-1) == [(3,)]
    (first,) = sqlite_database._looks._kept_on_loop
    for _ in range(3):
        with pytest.raises(WouldWait):
            sqlite_database.at_once(first_numbers(5), within_s=-1)
    add_fact(sqlite_database)
    assert sqlite_database.at_once(COUNT) == [(1,)]
    assert sqlite_database.at_once(first_numbers(500)) == [(125_250,)]
    (only,) = sqlite_database._looks._kept_on_loop
    assert only is first
    assert not only.driver.in_transaction


def test_an_embedded_database_that_was_slow_is_left_to_threads_for_a_while(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have fetched each of the few rows from the disk before the clock was looked at."""
    now = [1000.0]
    monkeypatch.setattr("pacsteward.base.db.look.time.monotonic", lambda: now[0])
    sqlite_database.glance(COUNT)
    assert sqlite_database.at_once(COUNT, within_s=1) == [(0,)]
    sqlite_database._looks._kept_on_loop[0].driver.create_function("fetched", 0, lambda: wait(0.06))

    def wait(seconds: float) -> int:
        now[0] += seconds
        return 7

    assert sqlite_database.at_once("SELECT fetched()", within_s=1) == [(7,)]
    assert not sqlite_database.is_near
    with pytest.raises(WouldWait):
        sqlite_database.at_once(COUNT, within_s=1)
    assert sqlite_database.glance(COUNT) == [(0,)]
    # What is asked all the time goes on, and does not begin it anew: no disk is needed for it.
    assert sqlite_database.at_once(COUNT, is_in_memory=True) == [(0,)]
    now[0] += 1.01
    assert sqlite_database.at_once(COUNT, within_s=1) == [(0,)]
    assert sqlite_database.at_once("SELECT fetched()", is_in_memory=True) == [(7,)]
    assert sqlite_database.is_near


def test_an_event_loop_waits_for_nobody_who_has_locked_the_file(sqlite_database: Database) -> None:
    sqlite_database.glance(COUNT)
    assert sqlite_database.at_once(COUNT) == [(0,)]
    (look,) = sqlite_database._looks._kept_on_loop
    assert look.rows("PRAGMA busy_timeout") == [(0,)]


def test_an_event_loop_opens_nothing_and_answers_after_the_first_question_of_a_thread(
    sqlite_database: Database,
) -> None:
    """To open an embedded database waits for whoever has locked its file, for seconds."""
    opened: list[object] = []

    @event.listens_for(sqlite_database.engine, "checkout")
    def note(connection: Any, *_rest: object) -> None:
        opened.append(connection)

    for is_in_memory in (False, True):
        with pytest.raises(WouldWait):
            sqlite_database.at_once(COUNT, within_s=1, is_in_memory=is_in_memory)
    assert not opened
    assert sqlite_database.glance(COUNT, timeout_s=5) == [(0,)]
    for _ in range(3):
        assert sqlite_database.at_once(COUNT, within_s=1) == [(0,)]
    assert len(opened) == 1
    # What the loop took over does not come back to threads, and they need one more, once.
    for _ in range(3):
        assert sqlite_database.glance(COUNT) == sqlite_database.at_once(COUNT) == [(0,)]
    assert len(opened) == 2


def first_numbers(count: int) -> str:
    """Ask for the sum of the first numbers."""
    rows = f"SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < {count}"
    return f"WITH RECURSIVE n(x) AS ({rows}) SELECT sum(x) FROM n"


def test_a_database_elsewhere_is_not_asked_on_a_loop(
    postgres_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "_is_near", lambda _connection: False)
    assert postgres_database.glance(COUNT) == [(0,)]
    assert not postgres_database.is_near
    with pytest.raises(WouldWait):
        postgres_database.at_once(COUNT, within_s=1)


def test_what_fails_at_once_is_left_to_who_may_wait(database: Database) -> None:
    database.glance(COUNT)
    with pytest.raises(WouldWait):
        database.at_once("SELECT nothing FROM nowhere", within_s=1)
    database.glance(COUNT)
    assert database.at_once(COUNT, within_s=1) == [(0,)]
