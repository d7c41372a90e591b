"""Short looks of readers: plain SQL on a driver's connection, in one consistent state.

Behind each frame and each row of a worklist stands a question that takes the database some
microseconds. A connection from SQLAlchemy's pool, its transaction and its results take ten times
as long, so a reader's look keeps a few connections of its own and speaks to the driver, or to
PostgreSQL's own library (`wire.py`). What changes something, and whatever is not asked thousands of
times, goes by `Database.read` and `Database.write`.

A question of one statement is a *glance*: it needs no transaction, so on PostgreSQL it is one trip
instead of three. On an event loop it may be put to a server on the same machine, whose answer is
there sooner than a thread would be; if it is not, the loop goes on without it.
"""

from __future__ import annotations

import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from math import inf
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from pacsteward.base.errors import Unavailable, WouldWait
from pacsteward.base.late import late

if TYPE_CHECKING:
    from pacsteward.base.db import wire
else:
    wire = late("pacsteward.base.db.wire")

KEPT_MAX: Final = 8
"""Connections that wait for the next look; one of more at once is closed after it."""

PATIENCE_S: Final = 0.02
"""How long an event loop waits for a PostgreSQL server that ought to answer at once."""

_SLOW_S: Final = 0.05
"""An embedded database that took longer had to fetch what it looked at from a slow disk."""

_PAUSE_S: Final = 1.0
"""How long no event loop asks it after it kept one waiting."""

_STEPS_BETWEEN_GLANCES: Final = 20_000
"""SQLite looks at the clock after so many instructions of its machine, some 1,000 rows."""

_STEPS_ON_A_LOOP: Final = 100
"""The same where an event loop waits: some 5 rows, each of which a slow disk may have to look for.
What finds one row by its number takes 60."""

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


class _WiredLook(Look):
    """The same to a PostgreSQL server."""

    driver: wire.Wire

    def rows(self, statement: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        return self.driver.rows(statement, parameters)


class _LoopLook(Look):
    """The same to an embedded database, for an event loop alone: it waits for nobody who writes.

    Parameters
    ----------
    driver
        Of a connection that a thread has opened and used. To open one waits for whoever has
        locked the file, and reads from the disk what tables there are.
    """

    def __init__(self, driver: Any) -> None:
        super().__init__(driver, None)
        driver.execute("PRAGMA busy_timeout=0")
        self._deadline = deadline = [inf]
        # Not a method: the connection would hold what holds it.
        driver.set_progress_handler(lambda: time.monotonic() > deadline[0], _STEPS_ON_A_LOOP)

    def rows_until(
        self, deadline: float, statement: str, parameters: Sequence[object]
    ) -> list[tuple[Any, ...]]:
        """Return what `rows` does, or stop soon after `deadline`."""
        self._deadline[0] = deadline
        return self.rows(statement, parameters)


class Looks:
    """The connections that are kept for it; share one in a process."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._is_sqlite = engine.dialect.name == "sqlite"
        self._kept: dict[float | None, deque[Look]] = {}
        """By timeout, since to change it costs PostgreSQL a trip. Taking from and putting to a
        deque is atomic."""
        self._kept_on_loop: deque[_LoopLook] = deque()
        self._is_near = self._is_sqlite
        self._asked_again_at = 0.0

    @contextmanager
    def look(self, timeout_s: float | None) -> Iterator[Look]:
        """Give a connection that sees one state of the database; see `Database.look`."""
        look: Look | None = None
        try:
            look = self._begun(timeout_s)
            yield look
            look.rows("ROLLBACK")
        except (self._error, DBAPIError, PoolTimeoutError) as error:
            if look is not None:
                self._drop(look)
            raise unavailable(error) from error
        except BaseException:
            if look is not None:
                self._drop(look)
            raise
        self._keep(look)

    def glance(
        self, statement: str, parameters: Sequence[object], timeout_s: float | None
    ) -> list[tuple[Any, ...]]:
        """Return the rows of one statement; see `Database.glance`."""
        if self._is_sqlite and timeout_s is not None:
            with self.look(timeout_s) as timed:
                return timed.rows(statement, parameters)
        # One statement is one consistent state by itself.
        while (look := self._taken(timeout_s)) is not None:
            try:
                found = look.rows(statement, parameters)
            except self._error as error:
                self._drop(look)
                if _is_answer(error):
                    raise unavailable(error) from error
                # The server may have been restarted since.
            else:
                self._keep(look)
                return found
        look = None
        try:
            look = self._opened(timeout_s)
            found = look.rows(statement, parameters)
        except (self._error, DBAPIError, PoolTimeoutError) as error:
            if look is not None:
                self._drop(look)
            raise unavailable(error) from error
        self._keep(look)
        return found

    @property
    def is_near(self) -> bool:
        """Whether `at_once` is worth a try."""
        return self._is_near and time.monotonic() >= self._asked_again_at

    def at_once(
        self,
        statement: str,
        parameters: Sequence[object],
        *,
        within_s: float | None,
        timeout_s: float | None,
    ) -> list[tuple[Any, ...]]:
        """Return the rows of one statement, on an event loop; see `Database.at_once`."""
        if self._is_sqlite:
            return self._embedded_at_once(statement, parameters, within_s)
        # To connect takes some milliseconds: whoever asks from a thread does it, and keeps it.
        look = self._taken(timeout_s)
        if look is None:
            raise WouldWait
        try:
            found: list[tuple[Any, ...]] = look.driver.rows(
                statement, parameters, within_s=PATIENCE_S
            )
        except wire.TooLate:
            self._asked_again_at = time.monotonic() + _PAUSE_S
            raise WouldWait from None
        except self._error:
            self._drop(look)
            raise WouldWait from None
        self._keep(look)
        return found

    def _embedded_at_once(
        self, statement: str, parameters: Sequence[object], within_s: float | None
    ) -> list[tuple[Any, ...]]:
        began = time.monotonic()
        deadline = inf if within_s is None else began + within_s
        try:
            return self.from_memory(statement, parameters, deadline)
        finally:
            now = time.monotonic()
            if now - began > _SLOW_S:
                self._asked_again_at = now + _PAUSE_S

    def from_memory(
        self, statement: str, parameters: Sequence[object], deadline: float = inf
    ) -> list[tuple[Any, ...]]:
        """Return the rows of one statement, for which no transaction has to be begun.

        Of an embedded database, on an event loop. That it took long is not minded.
        """
        look = self._loop_look()
        try:
            found = look.rows_until(deadline, statement, parameters)
        except self._error as error:
            # One that was stopped is as good as before, and another one has to come from a thread.
            if _was_stopped(error):
                self._kept_on_loop.append(look)
            else:
                self._drop(look)
            raise WouldWait from None
        self._kept_on_loop.append(look)
        return found

    def _loop_look(self) -> _LoopLook:
        """Return a connection for a loop; where there is none yet, one that a thread has kept."""
        with suppress(IndexError):
            return self._kept_on_loop.pop()
        look = self._taken(None)
        if look is None:
            raise WouldWait
        return _LoopLook(look.driver)

    def close(self) -> None:
        """Close what is kept."""
        for kept in self._kept.values():
            while kept:
                self._drop(kept.pop())
        while self._kept_on_loop:
            self._drop(self._kept_on_loop.pop())

    # --- connections ----------------------------------------------------------------------------

    def _begun(self, timeout_s: float | None) -> Look:
        """Return a connection in a transaction, a new one where the kept one has died."""
        while (look := self._taken(timeout_s)) is not None:
            try:
                self._begin(look, timeout_s)
            except self._error:
                # The server may have been restarted since.
                self._drop(look)
            else:
                return look
        look = self._opened(timeout_s)
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
        look.rows(_BEGIN[self._is_sqlite])

    def _taken(self, timeout_s: float | None) -> Look | None:
        """Return a kept connection, None where there is none left."""
        kept = self._kept.get(None if self._is_sqlite else timeout_s)
        if kept:
            with suppress(IndexError):
                return kept.pop()
        return None

    def _opened(self, timeout_s: float | None) -> Look:
        """Return a new connection."""
        pooled = self._engine.raw_connection()
        pooled.detach()
        driver: Any = pooled.dbapi_connection
        if self._is_sqlite:
            return Look(driver, None)
        look = _WiredLook(wire.Wire(driver), timeout_s)
        self._is_near = look.driver.is_near
        if timeout_s is not None:
            look.rows(f"SET statement_timeout = {max(1, int(timeout_s * 1000))}")
        return look

    def _keep(self, look: Look) -> None:
        if self._is_sqlite and look.timeout_s is not None:
            look.driver.set_progress_handler(None, 0)
            look.timeout_s = None
        kept = self._kept.setdefault(look.timeout_s, deque())
        if len(kept) < KEPT_MAX:
            kept.append(look)
        else:
            self._drop(look)

    def _drop(self, look: Look) -> None:
        with suppress(self._error):  # it may be gone already
            look.driver.close()

    @property
    def _error(self) -> type[Exception]:
        error: type[Exception] = self._engine.dialect.loaded_dbapi.Error
        return error


def unavailable(error: BaseException) -> Unavailable:
    """Say what an error of a driver, or of the pool, means for whoever asked."""
    if isinstance(error, PoolTimeoutError):
        return Unavailable(
            "The database did not answer.",
            why="All connections to it are in use.",
            remedy="Try again; if it lasts, see what the database is busy with.",
        )
    if _names_a_full_disk(error):
        return Unavailable(
            "Nothing can be written down: the disk of the database is full.",
            remedy="Free space on it. What is stored can still be read.",
        )
    return Unavailable(
        "The database did not answer.",
        why=f"{type(error).__name__}: {error}".strip()[:300],
        remedy="Try again; if it lasts, see that the database runs and its disk has space.",
    )


def _names_a_full_disk(error: BaseException) -> bool:
    """Whether it is SQLITE_FULL, or PostgreSQL's disk_full (SQLSTATE 53100)."""
    full = getattr(error, "sqlite_errorname", ""), getattr(error, "sqlstate", "")
    return full[0] == "SQLITE_FULL" or full[1] == "53100"


def _is_answer(error: Exception) -> bool:
    """Whether a server said so that is still there, so that another connection hears the same."""
    state = getattr(error, "sqlstate", None) or ""
    # PostgreSQL, appendix A: classes 08 and 57P are of connections that end, 0A000 and 26000 of
    # statements that were planned before a table was changed, or in another session of a pooler.
    return bool(state) and not state.startswith(("08", "57P", "0A000", "26000"))


def was_stopped(error: Unavailable) -> bool:
    """Whether the database gave up because the look's time was over."""
    return _was_stopped(error.__cause__)


def took_nothing(error: Unavailable) -> bool:
    """Whether the database can be read and not be written, because its disk is full or refuses.

    SQLite calls a disk full when it has no room at all. A quota, or a limit of the file's size, is
    an input/output error to it.
    """
    cause = error.__cause__
    if cause is None:
        return False
    # The driver's error, or one of SQLAlchemy around it.
    raised = getattr(cause, "orig", None) or cause
    name = getattr(raised, "sqlite_errorname", "")
    return _names_a_full_disk(raised) or name == "SQLITE_IOERR_WRITE"


def _was_stopped(error: BaseException | None) -> bool:
    if isinstance(error, sqlite3.OperationalError):
        return error.sqlite_errorname == "SQLITE_INTERRUPT"
    return getattr(error, "sqlstate", None) == "57014"  # query_canceled


def _alarm(timeout_s: float) -> Callable[[], int]:
    deadline = time.monotonic() + timeout_s
    return lambda: time.monotonic() > deadline
