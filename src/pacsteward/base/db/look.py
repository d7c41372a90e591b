"""Short looks of readers: plain SQL on a driver's connection, in one consistent state.

Behind each frame and each row of a worklist stands a question that takes the database some
microseconds. A connection from SQLAlchemy's pool, its transaction and its results take ten times
as long, so a reader's look keeps a few connections of its own and speaks to the driver. What
changes something, and whatever is not asked thousands of times, goes by `Database.read` and
`Database.write`.
"""

from __future__ import annotations

import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from pacsteward.base.errors import Unavailable

KEPT_MAX: Final = 8
"""Connections that wait for the next look; one of more at once is closed after it."""

_STEPS_BETWEEN_GLANCES: Final = 20_000
"""SQLite looks at the clock after so many instructions of its machine: under a millisecond."""

_BEGIN: Final = {
    True: "BEGIN",
    False: "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
}


class Look:
    """A connection while a look lasts."""

    def __init__(self, driver: Any, timeout_s: float | None) -> None:
        self.driver = driver
        self.timeout_s = timeout_s
        """What the connection is set to, which on PostgreSQL outlasts the look."""

    def rows(self, statement: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of an answer.

        Parameters
        ----------
        statement
            With the parameter marks of the driver.
        """
        found: list[tuple[Any, ...]] = self.driver.execute(statement, tuple(parameters)).fetchall()
        return found


class Looks:
    """The connections that are kept for it; share one in a process."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._is_sqlite = engine.dialect.name == "sqlite"
        # Taking from and putting to a deque is atomic.
        self._kept: deque[Look] = deque()

    @contextmanager
    def look(self, timeout_s: float | None) -> Iterator[Look]:
        """Give a connection that sees one state of the database; see `Database.look`."""
        look: Look | None = None
        try:
            look = self._begun(timeout_s)
            yield look
            look.driver.execute("ROLLBACK")
        except (self._error, DBAPIError) as error:
            if look is not None:
                self._drop(look)
            raise Unavailable(
                "The database did not answer.",
                why=f"{type(error).__name__}: {error}".strip()[:300],
                remedy="Try again; if it lasts, see that the database runs and its disk has space.",
            ) from error
        except BaseException:
            if look is not None:
                self._drop(look)
            raise
        self._keep(look)

    def glance(self, statement: str, parameters: Sequence[object]) -> list[tuple[Any, ...]]:
        """Return the rows of one statement; see `Database.glance`."""
        look: Look | None = None
        if self._is_sqlite:
            # One statement is one consistent state by itself.
            with suppress(IndexError):
                look = self._kept.pop()
        if look is None:
            with self.look(None) as first:
                return first.rows(statement, parameters)
        try:
            found = look.rows(statement, parameters)
        except self._error:
            self._drop(look)
            with self.look(None) as another:
                return another.rows(statement, parameters)
        self._kept.append(look)
        return found

    def close(self) -> None:
        """Close what is kept."""
        while self._kept:
            self._drop(self._kept.pop())

    def _begun(self, timeout_s: float | None) -> Look:
        """Return a connection in a transaction, a new one where the kept one has died."""
        while self._kept:
            with suppress(IndexError):
                look = self._kept.pop()
                try:
                    self._begin(look, timeout_s)
                except self._error:
                    # The server may have been restarted since.
                    self._drop(look)
                else:
                    return look
        pooled = self._engine.raw_connection()
        pooled.detach()
        driver: Any = pooled.dbapi_connection
        if not self._is_sqlite:
            driver.autocommit = True
        look = Look(driver, None)
        try:
            self._begin(look, timeout_s)
        except self._error:
            self._drop(look)
            raise
        return look

    def _begin(self, look: Look, timeout_s: float | None) -> None:
        if self._is_sqlite:
            if timeout_s is not None:
                look.driver.set_progress_handler(_alarm(timeout_s), _STEPS_BETWEEN_GLANCES)
            look.timeout_s = timeout_s
        elif look.timeout_s != timeout_s:
            milliseconds = 0 if timeout_s is None else max(1, int(timeout_s * 1000))
            look.driver.execute(f"SET statement_timeout = {milliseconds}")
            look.timeout_s = timeout_s
        look.driver.execute(_BEGIN[self._is_sqlite])

    def _keep(self, look: Look) -> None:
        if self._is_sqlite and look.timeout_s is not None:
            look.driver.set_progress_handler(None, 0)
        if len(self._kept) < KEPT_MAX:
            self._kept.append(look)
        else:
            self._drop(look)

    def _drop(self, look: Look) -> None:
        with suppress(self._error):  # it may be gone already
            look.driver.close()

    @property
    def _error(self) -> type[Exception]:
        error: type[Exception] = self._engine.dialect.loaded_dbapi.Error
        return error


def was_stopped(error: Unavailable) -> bool:
    """Whether the database gave up because the look's time was over."""
    cause = error.__cause__
    if isinstance(cause, sqlite3.OperationalError):
        return cause.sqlite_errorname == "SQLITE_INTERRUPT"
    return getattr(cause, "sqlstate", None) == "57014"  # query_canceled


def _alarm(timeout_s: float) -> Callable[[], int]:
    deadline = time.monotonic() + timeout_s
    return lambda: time.monotonic() > deadline
