"""Asked through the library alone, PostgreSQL says what it says through the driver."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import psycopg
import pytest

from pacsteward.base.db.wire import PREPARED_MAX, TooLate, Wire, marked


@pytest.fixture
def wire(postgres_server: str) -> Iterator[Wire]:
    """A wire to the server of the test run."""
    plain = postgres_server.replace("postgresql+psycopg://", "postgresql://", 1)
    wire = Wire(psycopg.connect(plain))
    yield wire
    wire.close()


def test_values_go_and_come_as_with_the_driver(wire: Wire, postgres_server: str) -> None:
    statement = (
        "SELECT %s::text, %s::bigint, %s::float8, %s::bytea, %s::timestamptz, %s::boolean, "
        "%s::text[], NULL, 1.5::numeric, '100 %%'"
    )
    values = (
        "O'Brien ☃",
        2**40,
        0.1,
        b"\0\xff",
        datetime(2026, 3, 1, 7, 30, tzinfo=UTC),
        True,
        ["a,b", '"', "\\"],
    )
    plain = postgres_server.replace("postgresql+psycopg://", "postgresql://", 1)
    with psycopg.connect(plain) as driver:
        expected = driver.execute(statement, values).fetchall()
    # Asked plainly, then prepared, then from what is prepared.
    assert [wire.rows(statement, values) for _ in range(3)] == [expected] * 3


def test_a_statement_prepared_for_one_kind_of_value_takes_another(wire: Wire) -> None:
    for value in (1, 2, 3, 2**40, 2**40 + 1, 1, 70_000):
        assert wire.rows("SELECT %s", (value,)) == [(value,)]


def test_more_statements_than_are_kept_are_answered(wire: Wire) -> None:
    for _ in range(2):
        for number in range(PREPARED_MAX + 20):
            for _ in range(2):
                assert wire.rows(f"SELECT {number} + %s", (1,)) == [(number + 1,)]
    ((kept,),) = wire.rows("SELECT count(*) FROM pg_prepared_statements")
    assert 0 < kept <= PREPARED_MAX


def test_a_statement_longer_than_a_socket_holds_is_answered(wire: Wire) -> None:
    text = "x" * 20_000_000
    assert wire.rows("SELECT length(%s), %s", (text, text)) == [(len(text), text)]


def test_what_the_server_refuses_is_its_own_error_and_the_next_one_is_answered(wire: Wire) -> None:
    with pytest.raises(psycopg.errors.UndefinedTable, match="nowhere"):
        wire.rows("SELECT nothing FROM nowhere")
    for _ in range(2):
        with pytest.raises(psycopg.errors.UndefinedTable):
            wire.rows("SELECT nothing FROM nowhere")
    with pytest.raises(psycopg.DataError, match="NUL"):
        wire.rows("SELECT %s::text", ("a\0b",))
    assert wire.rows("SELECT 1") == [(1,)]


def test_an_answer_that_is_not_there_in_time_is_never_taken_for_another(wire: Wire) -> None:
    with pytest.raises(TooLate):
        wire.rows("SELECT 1 FROM pg_sleep(30)", within_s=0.01)
    with pytest.raises(psycopg.OperationalError):
        wire.rows("SELECT 2", within_s=10)


def test_what_is_about_to_be_prepared_has_no_longer(wire: Wire, postgres_server: str) -> None:
    """The server plans it first, and may have to wait for a lock to do so."""
    plain = postgres_server.replace("postgresql+psycopg://", "postgresql://", 1)
    with psycopg.connect(plain, autocommit=True) as other:
        other.execute("CREATE TABLE held (number integer)")
        try:
            wire.rows("SELECT * FROM held", within_s=10)
            with other.transaction():
                other.execute("LOCK TABLE held IN ACCESS EXCLUSIVE MODE")
                with pytest.raises(TooLate):
                    wire.rows("SELECT * FROM held", within_s=0.01)
        finally:
            other.execute("DROP TABLE held")


def test_marks_are_the_servers_and_a_doubled_sign_is_one() -> None:
    assert marked("a = %s AND b LIKE '%%x' AND c = %s") == b"a = $1 AND b LIKE '%x' AND c = $2"
