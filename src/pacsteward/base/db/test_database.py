"""A database that is away or busy is said so, and never waited for without end."""

from __future__ import annotations

import contextvars
import resource
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, event, insert, select, text
from sqlalchemy.pool import QueuePool
from tests.support.ports import free_port

from pacsteward.base.clock import ManualClock
from pacsteward.base.db import (
    Database,
    Question,
    RowInsert,
    open_database,
    patience,
    patient_once,
    took_nothing,
)
from pacsteward.base.db import database as database_module
from pacsteward.base.db.database import POSTGRES_WIRE
from pacsteward.base.errors import Broken, Unavailable
from pacsteward.base.events.tables import FACT


def test_connections_that_are_all_in_use_are_named_as_the_cause(tmp_path: Path) -> None:
    engine = create_engine(
        f"sqlite:///{tmp_path / 'index.db'}",
        poolclass=QueuePool,
        pool_size=1,
        max_overflow=0,
        pool_timeout=0.05,
    )
    database = Database(engine)
    with engine.connect(), pytest.raises(Unavailable, match="in use"), database.read():
        pass
    database.close()


def test_a_file_that_is_no_database_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "index.db").write_bytes(b"not an index at all" * 500)
    database = open_database(tmp_path / "index.db")
    with pytest.raises(Broken, match="The index cannot be read") as said, database.read():
        pass
    assert "backup" in said.value.remedy
    database.close()


def test_postgresql_that_went_away_unseen_is_given_up(postgres_server: str) -> None:
    database = open_database(postgres_server)
    with database.read() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        used = driver.info.get_parameters()
    database.close()
    assert {name: int(used[name]) for name in POSTGRES_WIRE} == POSTGRES_WIRE


def test_what_the_url_says_about_waiting_goes_first(postgres_server: str) -> None:
    mark = "&" if "?" in postgres_server else "?"
    database = open_database(f"{postgres_server}{mark}connect_timeout=3")
    with database.read() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        assert driver.info.get_parameters()["connect_timeout"] == "3"
    database.close()


def test_a_question_is_answered_with_what_is_there_now(database: Database) -> None:
    count = "SELECT count(*) FROM fact WHERE name = "
    question = Question(database, sqlite=f"{count}?", postgresql=f"{count}%s")
    assert question.ask("Something") == [(0,)]
    with database.write() as connection:
        connection.execute(insert(FACT).values(name="Something", at=ManualClock().now(), body="{}"))
        assert question.ask("Something") == [(0,)]
    assert question.ask("Something") == [(1,)]
    question.close()
    assert question.ask("Something") == [(1,)]
    question.close()


def test_a_question_finds_the_database_again(postgres_database: Database) -> None:
    question = Question(postgres_database, sqlite="", postgresql="SELECT pg_backend_pid()")
    ((process,),) = question.ask()
    with postgres_database.write() as connection:
        connection.exec_driver_sql(f"SELECT pg_terminate_backend({process})")
    ((other,),) = question.ask()
    assert other != process
    question.close()


def test_a_full_disk_is_called_by_its_name(tmp_path: Path) -> None:
    database = open_database(tmp_path / "small.db")
    with database.write() as connection:
        connection.exec_driver_sql("CREATE TABLE words (word TEXT)")

    def write_too_much() -> None:
        with database.write() as connection:
            # SQLite counts its own pages as it would a disk's.
            connection.exec_driver_sql("PRAGMA max_page_count = 3")
            connection.exec_driver_sql("INSERT INTO words VALUES (zeroblob(1000000))")

    with pytest.raises(Unavailable, match="disk of the database is full") as caught:
        write_too_much()
    assert "Free space" in caught.value.remedy
    database.close()
    assert took_nothing(caught.value)


def test_a_quota_is_no_failure_of_the_whole_database(tmp_path: Path) -> None:
    database = open_database(tmp_path / "small.db")
    with database.write() as connection:
        connection.exec_driver_sql("CREATE TABLE words (word TEXT)")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def write() -> None:
        with database.write() as connection:
            connection.exec_driver_sql("INSERT INTO words VALUES (zeroblob(1000000))")

    try:
        # The system refuses a longer file as it does one that is over a quota, with another number.
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        with pytest.raises(Unavailable) as caught:
            write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert took_nothing(caught.value)
    with database.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM words").scalar() == 0
    database.close()


def test_a_question_to_a_database_that_is_away_says_so(tmp_path: Path) -> None:
    database = open_database(f"postgresql://nobody@127.0.0.1:{free_port()}/none")
    with pytest.raises(Unavailable, match="did not answer"):
        Question(database, sqlite="", postgresql="SELECT 1").ask()
    database.close()


def test_rows_are_kept_as_sqlalchemy_would_keep_them(database: Database) -> None:
    at = datetime(2026, 3, 1, 7, 30, tzinfo=UTC)
    fast = RowInsert(FACT, ["position", "name", "at", "body"], key=["position"])
    with database.write() as connection:
        connection.execute(insert(FACT).values(position=1, name="A", at=at, body="first"))
        rows = [
            {"position": number, "name": "A", "at": at, "body": "100 %, 'quoted'", "more": 1}
            for number in (1, 2)
        ]
        fast.execute(connection, rows)
        fast.execute(connection, [])
    with database.read() as connection:
        found = connection.execute(select(FACT.c.at, FACT.c.body).order_by(FACT.c.position)).all()
    assert [tuple(row) for row in found] == [(at, "first"), (at, "100 %, 'quoted'")]


def test_rows_are_counted_up_in_their_order_whatever_they_hold(database: Database) -> None:
    fast = RowInsert(FACT, ["name", "at", "body"])
    bodies = [f'{number} "quoted" \\ \\u0000 ☃ {{}} %s' for number in range(50)]
    with database.write() as connection:
        fast.execute_values(connection, [("B", ManualClock().now(), body) for body in bodies])
    with database.read() as connection:
        found = connection.execute(select(FACT.c.body).order_by(FACT.c.position)).scalars().all()
    assert found == bodies


@pytest.mark.parametrize("value", ["half \ud800", "nul \0", "\\\0", float("nan"), object()])
def test_what_a_column_cannot_hold_is_refused_and_not_changed(
    postgres_database: Database, value: object
) -> None:
    fast = RowInsert(FACT, ["name", "at", "body"])
    name = "DOE^JANE"
    with (
        pytest.raises((ValueError, TypeError)) as refused,
        postgres_database.write() as writing,
    ):
        fast.execute_values(writing, [(name, ManualClock().now(), value)])
    # What an error says goes into the log.
    assert name not in str(refused.value)
    with postgres_database.read() as connection:
        assert connection.execute(select(FACT.c.body)).all() == []


def test_a_moment_without_its_zone_is_refused(database: Database) -> None:
    fast = RowInsert(FACT, ["name", "at", "body"])
    with pytest.raises(ValueError, match="without time zone"), database.write() as writing:
        fast.execute_values(writing, [("B", datetime(2026, 3, 1), "{}")])


@pytest.mark.parametrize("is_durable", [True, False])
def test_a_connection_that_the_server_ended_while_it_lay_idle_is_not_used(
    postgres_database: Database, is_durable: bool
) -> None:
    # A glance keeps a connection of its own.
    postgres_database.glance("SELECT 1")
    with postgres_database.write(durable=is_durable) as connection:
        process = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
    ((is_ended,),) = postgres_database.glance(
        "SELECT pg_terminate_backend(%s::integer, 10000)", (process,)
    )
    assert is_ended
    with postgres_database.write(durable=is_durable) as connection:
        assert connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one() != process


def test_only_what_may_be_forgotten_does_not_wait_for_the_servers_disk(
    postgres_database: Database,
) -> None:
    source = text("SELECT source FROM pg_settings WHERE name = 'synchronous_commit'")
    for is_durable in (True, False, True):
        with postgres_database.write(durable=is_durable) as connection:
            is_said_so = connection.execute(source).scalar_one() == "session"
        assert is_said_so is not is_durable


def test_an_unsynced_transaction_is_one_as_well(postgres_database: Database) -> None:
    row = {"name": "A", "at": ManualClock().now(), "body": "{}"}
    with pytest.raises(ZeroDivisionError), postgres_database.write(durable=False) as connection:
        _fail_after(connection, row)
    with postgres_database.write(durable=False) as connection:
        connection.execute(insert(FACT), row)
    assert postgres_database.glance("SELECT count(*) FROM fact") == [(1,)]


def _fail_after(connection: Connection, row: dict[str, object]) -> None:
    connection.execute(insert(FACT), row)
    raise ZeroDivisionError


def test_one_piece_of_work_waits_for_a_lock_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page that writes three times would keep its reader waiting three times as long."""
    for module in (database_module, patience):
        monkeypatch.setattr(module, "BUSY_TIMEOUT_S", 0.2)
    monkeypatch.setattr(patience, "LEAST_S", 0.03)
    database, locker = (open_database(tmp_path / "index.db") for _ in range(2))
    asked: list[str] = []

    @event.listens_for(database.engine, "before_cursor_execute")
    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if statement.startswith(("PRAGMA busy_timeout", "BEGIN")):
            asked.append(statement)

    def write() -> None:
        with database.write():
            pass

    with locker.write():
        for _ in range(2):
            with patient_once():
                for _ in range(3):
                    with pytest.raises(Unavailable):
                        contextvars.copy_context().run(write)
        short = ["PRAGMA busy_timeout=30", "BEGIN IMMEDIATE", "PRAGMA busy_timeout=200"]
        assert asked == ["BEGIN IMMEDIATE", *short, *short] * 2
        asked.clear()
        for _ in range(2):
            with pytest.raises(Unavailable):
                write()
        assert asked == ["BEGIN IMMEDIATE"] * 2
    write()
    database.close()
    locker.close()


def test_a_long_piece_of_work_whose_patience_is_used_up_still_waits_for_an_ordinary_write(
    tmp_path: Path,
) -> None:
    """A request of minutes that waited a second now and then would fail for milliseconds."""
    database = open_database(tmp_path / "index.db")
    asked: list[str] = []

    @event.listens_for(database.engine, "before_cursor_execute")
    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if statement.startswith("PRAGMA busy_timeout"):
            asked.append(statement)

    with patient_once():
        for waited_s in (9, 9, 9, 0):
            with database.engine.connect() as connection:
                patience.begin_immediate(connection, time.monotonic() - waited_s)
    database.close()
    before = [int(each.partition("=")[2]) for each in asked[::2]]
    assert before[0] <= 6_000
    assert before[1:] == [500, 500]
    assert asked[1::2] == ["PRAGMA busy_timeout=15000"] * 3


def test_whoever_gets_no_connection_is_told_that_the_database_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not that something is broken: the same request may succeed later."""
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_S", 0.05)
    database = open_database(tmp_path / "index.db")
    question = Question(database, sqlite="SELECT 1", postgresql="SELECT 1")

    def look() -> None:
        with database.look():
            pass

    with ExitStack() as others:
        for _ in range(database_module.CONNECTIONS_MAX):
            others.enter_context(database.read())
        for ask in (look, partial(database.glance, "SELECT 1"), question.ask):
            with pytest.raises(Unavailable, match="All connections to it are in use"):
                ask()
    assert question.ask() == database.glance("SELECT 1") == [(1,)]
    question.close()
    database.close()
