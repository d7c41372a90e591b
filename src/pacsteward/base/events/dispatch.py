"""Tells facts to subscribers: each one at least once, in order, at its own pace.

Every subscriber has a cursor (a row of ``fact_cursor``) and a thread. A handler that fails is asked
again with the same fact, after a pause that doubles up to five minutes; what it said stands in
its row, where checks and the console see it, and the other subscribers go on. Since a crash between
a handler and its cursor repeats the fact, handlers must bear repetition.

One dispatcher at a time moves the cursors of a database: it holds a lock that dies with its
process (SQLite: a locked file beside the database; PostgreSQL: an advisory lock). Others stand by.

Facts are looked for every fifth of a second, which costs one indexed row.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import Connection, func, insert, select, text, tuple_, update
from sqlalchemy.exc import DBAPIError

from pacsteward.base.clock import Clock, SystemClock
from pacsteward.base.db import Database
from pacsteward.base.errors import NotFound, PacstewardError
from pacsteward.base.events.log import Entry, Fact, FactLog, Position, decode
from pacsteward.base.events.tables import FACT, FACT_CURSOR

logger = logging.getLogger(__name__)

BATCH = 200
"""Facts read at a time; a cursor is kept at least once for so many."""

PAUSE_MAX_S = 300.0
"""The longest pause before a failed handler is asked again."""

KEEP_EVERY = 1000
"""A cursor that only passed facts of others is kept after so many, to spare the disk."""

ADVISORY_LOCK = 0x7061_6373_6661_6374
"""Key of the PostgreSQL lock: "pacsfact" in ASCII; advisory locks are counted per database."""


@dataclass(frozen=True, slots=True)
class Subscriber:
    """Who listens, to what, and what is done then.

    Parameters
    ----------
    name
        Under which its cursor is kept; do not change it later.
    facts
        The facts it wants.
    handle
        Called in a thread of its own with one fact at a time.
    """

    name: str
    facts: tuple[type[Fact], ...]
    handle: Callable[[Fact], None]


@dataclass(frozen=True, slots=True)
class CursorView:
    """How one subscriber is doing.

    Parameters
    ----------
    behind
        Facts that wait for it.
    attempts
        How often the fact that comes next has failed; 0 when all is well.
    """

    subscriber: str
    position: Position
    moved_at: datetime
    behind: int
    attempts: int
    last_error: str
    retry_at: datetime | None


class Dispatcher:
    """Runs subscribers; one in the jobs process.

    Parameters
    ----------
    database, clock
        Where the facts are, and the time.
    subscribers
        All of them, each name once.
    poll_s
        How often facts are looked for.
    """

    def __init__(
        self,
        database: Database,
        subscribers: Iterable[Subscriber],
        *,
        clock: Clock | None = None,
        poll_s: float = 0.2,
    ) -> None:
        self._database = database
        self._clock = clock or SystemClock()
        self._log = FactLog(self._clock)
        self._poll_s = poll_s
        self._stopping = threading.Event()
        self._runners = [_Runner(self, subscriber) for subscriber in subscribers]
        names = [runner.name for runner in self._runners]
        if len(set(names)) != len(names):
            raise ValueError("Two subscribers have the same name.")
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin to look for facts, in threads; cursors that are missing are made before it returns.

        Safe to call while another process dispatches: this one then stands by.
        """
        register(self._database, [runner.name for runner in self._runners], clock=self._clock)
        thread = threading.Thread(target=self._watch, name="facts", daemon=True)
        self._threads = [thread]
        thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Let handlers finish the fact they are at, then end."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(timeout_s)

    def drain(self) -> None:
        """Handle all there is in the caller's thread, then return; for tests and simulated days.

        A handler that fails stays behind and is tried again once its pause is over.
        """
        register(self._database, [runner.name for runner in self._runners], clock=self._clock)
        progressed = True
        while progressed:
            # All of them, each time: a handler may append facts that another one waits for.
            progressed = max((runner.turn() for runner in self._runners), default=False)

    def _watch(self) -> None:
        """Wait for our turn, then start the runners and wake them when the log has grown."""
        while not self._stopping.is_set():
            try:
                with _turn(self._database) as is_ours:
                    if is_ours():
                        self._dispatch(is_ours)
            except (PacstewardError, DBAPIError) as error:
                logger.warning("Facts cannot be read.", extra={"error": type(error).__name__})
            except Exception:
                # Nothing else would start it again, and all that listens would be silent.
                logger.exception("The dispatcher of facts failed; it begins again.")
            self._stopping.wait(1.0)

    def _dispatch(self, is_ours: Callable[[], bool]) -> None:
        """Run until told to stop, or until the database or the turn is lost."""
        settle_after_move(self._database)
        ended = threading.Event()
        threads = [
            threading.Thread(
                target=runner.run, args=(ended,), name=f"facts-{runner.name}", daemon=True
            )
            for runner in self._runners
        ]
        for thread in threads:
            thread.start()
        try:
            self._tell_news(is_ours)
        finally:
            ended.set()
            for runner in self._runners:
                runner.news.set()
            for thread in threads:
                thread.join(10.0)

    def _tell_news(self, is_ours: Callable[[], bool]) -> None:
        seen = Position(-1, -1)
        while not self._stopping.is_set() and is_ours():
            with self._database.read() as connection:
                end = self._log.end(connection)
            if end != seen:
                seen = end
                for runner in self._runners:
                    runner.news.set()
            self._stopping.wait(self._poll_s)


class _Runner:
    """One subscriber at work."""

    def __init__(self, dispatcher: Dispatcher, subscriber: Subscriber) -> None:
        self.name = subscriber.name
        self.news = threading.Event()
        self._subscriber = subscriber
        self._kinds = {kind.name: kind for kind in subscriber.facts}
        self._database = dispatcher._database
        self._clock = dispatcher._clock
        self._facts = dispatcher._log
        self._at: Position | None = None
        self._kept: Position = Position()
        self._attempts = 0
        self._retry_at: float | None = None

    def run(self, ended: threading.Event) -> None:
        """Take turns until `ended`."""
        self._at = None
        while not ended.is_set():
            self.news.clear()
            try:
                while not ended.is_set() and self.turn(ended):
                    pass
            except PacstewardError as error:
                logger.warning(
                    "Facts cannot be read.", extra={"subscriber": self.name, "error": str(error)}
                )
                self._at = None
                ended.wait(1.0)
            except Exception:
                # Nothing else would start it again before the process is.
                logger.exception("A subscriber failed.", extra={"subscriber": self.name})
                self._at = None
                ended.wait(1.0)
            else:
                # Not after a failure: of what is left untold there will be no other news.
                self.news.wait(self._wait_s())

    def turn(self, ended: threading.Event | None = None) -> bool:
        """Handle the next facts; say whether there may be more."""
        if self._at is None:
            self._load()
        assert self._at is not None
        if self._retry_at is not None:
            if self._clock.monotonic() < self._retry_at:
                return False
            # Somebody may have had it skip the fact meanwhile.
            self._load()
        with self._database.read() as connection:
            # First the end: facts that settle in between are then read, not passed over.
            end = self._facts.end(connection)
            entries = self._facts.after(connection, self._at, list(self._kinds), BATCH)
        for entry in entries:
            if ended is not None and ended.is_set():
                break
            if not self._handle(entry):
                self._keep()
                return False
            self._at = entry.position
        if entries:
            self._keep()
        elif end > self._at:
            self._at = end
            if end.number - self._kept.number >= KEEP_EVERY:
                self._keep()
        return bool(entries)

    def _handle(self, entry: Entry) -> bool:
        try:
            self._subscriber.handle(decode(entry, self._kinds))
        except Exception as error:  # noqa: BLE001
            self._failed(entry, error)
            return False
        if self._attempts:
            self._attempts, self._retry_at = 0, None
            self._note("", None)
        return True

    def _failed(self, entry: Entry, error: Exception) -> None:
        self._attempts += 1
        pause_s = min(2.0 ** min(self._attempts - 1, 32), PAUSE_MAX_S)
        self._retry_at = self._clock.monotonic() + pause_s
        # The words of an error that is not ours may quote anything, even a patient.
        words = str(error) if isinstance(error, PacstewardError) else type(error).__name__
        logger.warning(
            "A fact was not handled; it is tried again.",
            exc_info=None if isinstance(error, PacstewardError) else error,
            extra={
                "subscriber": self.name,
                "fact": entry.name,
                "position": entry.position.number,
                "attempts": self._attempts,
                "retry_in_s": pause_s,
                "error": words,
            },
        )
        self._note(f"{entry.name} {entry.position.number}: {words}"[:2000], pause_s)

    def _note(self, words: str, pause_s: float | None) -> None:
        now = self._clock.now()
        with self._database.write(durable=False) as connection:
            connection.execute(
                update(FACT_CURSOR)
                .where(FACT_CURSOR.c.subscriber == self.name)
                .values(
                    attempts=self._attempts,
                    last_error=words,
                    retry_at=None if pause_s is None else now + timedelta(seconds=pause_s),
                )
            )

    def _load(self) -> None:
        with self._database.read() as connection:
            row = connection.execute(
                select(
                    FACT_CURSOR.c.transaction_number,
                    FACT_CURSOR.c.position,
                    FACT_CURSOR.c.attempts,
                ).where(FACT_CURSOR.c.subscriber == self.name)
            ).one()
        self._at = self._kept = Position(row.transaction_number, row.position)
        self._attempts, self._retry_at = row.attempts, None

    def _keep(self) -> None:
        """Write the cursor down, unless somebody else has moved it meanwhile.

        Not synced: after a power cut the facts are told again, which handlers bear anyway.
        """
        assert self._at is not None
        if self._at == self._kept:
            return
        with self._database.write(durable=False) as connection:
            moved = connection.execute(
                update(FACT_CURSOR)
                .where(
                    FACT_CURSOR.c.subscriber == self.name,
                    FACT_CURSOR.c.transaction_number == self._kept.transaction_number,
                    FACT_CURSOR.c.position == self._kept.number,
                )
                .values(
                    transaction_number=self._at.transaction_number,
                    position=self._at.number,
                    moved_at=self._clock.now(),
                )
            )
        if moved.rowcount == 1:
            self._kept = self._at
        else:
            self._at = None

    def _wait_s(self) -> float | None:
        if self._retry_at is None:
            return None
        return max(0.0, self._retry_at - self._clock.monotonic())


def register(database: Database, names: Iterable[str], *, clock: Clock | None = None) -> None:
    """Make the cursors that are missing.

    A subscriber that joins a house at work begins with what happens from now on: nobody wants
    last month's studies forwarded by a rule made today. In a house that never had a subscriber it
    begins at the beginning, so that nothing is lost between the first start of the doors and the
    first start of the dispatcher.
    """
    now = (clock or SystemClock()).now()
    with database.read() as connection:
        missing = set(names) - set(connection.execute(select(FACT_CURSOR.c.subscriber)).scalars())
    if not missing:
        return
    with database.write() as connection:
        known = set(connection.execute(select(FACT_CURSOR.c.subscriber)).scalars())
        begin = FactLog().end(connection) if known else Position()
        rows = [
            {
                "subscriber": name,
                "transaction_number": begin.transaction_number,
                "position": begin.number,
                "moved_at": now,
            }
            for name in sorted(missing - known)
        ]
        if rows:
            connection.execute(insert(FACT_CURSOR), rows)


def cursors(database: Database, subscribers: Iterable[Subscriber]) -> list[CursorView]:
    """List how subscribers are doing, by name."""
    log = FactLog()
    wanted = {one.name: [kind.name for kind in one.facts] for one in subscribers}
    views = []
    with database.read() as connection:
        for row in connection.execute(select(FACT_CURSOR).order_by(FACT_CURSOR.c.subscriber)):
            if row.subscriber not in wanted:
                continue
            position = Position(row.transaction_number, row.position)
            views.append(
                CursorView(
                    subscriber=row.subscriber,
                    position=position,
                    moved_at=row.moved_at,
                    behind=log.count_after(connection, position, wanted[row.subscriber]),
                    attempts=row.attempts,
                    last_error=row.last_error,
                    retry_at=row.retry_at,
                )
            )
    return views


def skip(database: Database, subscriber: Subscriber, *, clock: Clock | None = None) -> str:
    """Move a subscriber past the fact that it fails at; return that fact's name and position.

    The dispatcher notices at its next attempt. What was skipped is not done: whoever asks for this
    writes it into the audit book.

    Raises
    ------
    NotFound
        Nothing waits for it.
    """
    with database.write() as connection:
        row = connection.execute(
            select(FACT_CURSOR).where(FACT_CURSOR.c.subscriber == subscriber.name)
        ).first()
        position = Position() if row is None else Position(row.transaction_number, row.position)
        names = [kind.name for kind in subscriber.facts]
        entries = FactLog().after(connection, position, names, 1) if row is not None else []
        if not entries:
            raise NotFound(f"No fact waits for {subscriber.name}.")
        connection.execute(
            update(FACT_CURSOR)
            .where(FACT_CURSOR.c.subscriber == subscriber.name)
            .values(
                transaction_number=entries[0].position.transaction_number,
                position=entries[0].position.number,
                moved_at=(clock or SystemClock()).now(),
                attempts=0,
                last_error="",
                retry_at=None,
            )
        )
    return f"{entries[0].name} {entries[0].position.number}"


def settle_after_move(database: Database) -> bool:
    """Make facts and cursors fit a PostgreSQL server that they were moved to; say if it was needed.

    A dump that is restored on another server keeps the transaction numbers of the old one, which
    may lie in the new one's future: new facts would be sorted before cursors and never be told. The
    facts of the old server then become transaction 0, where they are ordered by position, and every
    cursor goes back to the first fact it has not told.
    """
    if database.is_sqlite:
        return False
    next_number = text("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
    with database.read() as connection:
        last = connection.execute(select(func.max(FACT.c.transaction_number))).scalar() or 0
        cursor = connection.execute(select(func.max(FACT_CURSOR.c.transaction_number))).scalar()
        if max(last, cursor or 0) < connection.execute(next_number).scalar_one():
            return False
    with database.write() as connection:
        connection.execute(text("LOCK TABLE fact, fact_cursor IN SHARE ROW EXCLUSIVE MODE"))
        future = connection.execute(next_number).scalar_one()
        newest_old = connection.execute(
            select(func.max(FACT.c.position)).where(FACT.c.transaction_number >= future)
        ).scalar()
        rows = connection.execute(select(FACT_CURSOR)).all()
        newest_old = max(
            [newest_old or 0, *(row.position for row in rows if row.transaction_number >= future)]
        )
        for row in rows:
            told = Position(row.transaction_number, row.position)
            connection.execute(
                update(FACT_CURSOR)
                .where(FACT_CURSOR.c.subscriber == row.subscriber)
                .values(transaction_number=0, position=_safe_position(connection, told, newest_old))
            )
        connection.execute(
            update(FACT).where(FACT.c.position <= newest_old).values(transaction_number=0)
        )
    logger.warning("Facts were moved to another server.", extra={"newest_old": newest_old})
    return True


def _safe_position(connection: Connection, told: Position, newest_old: int) -> int:
    """Give the place right before the first old fact, by position, that comes after `told`."""
    first = connection.execute(
        select(func.min(FACT.c.position)).where(
            tuple_(FACT.c.transaction_number, FACT.c.position) > tuple(told),
            FACT.c.position <= newest_old,
        )
    ).scalar()
    return newest_old if first is None else int(first) - 1


@contextlib.contextmanager
def _turn(database: Database) -> Iterator[Callable[[], bool]]:
    """Try to get the right to move cursors; gives a question whether it is still ours."""
    if not database.is_sqlite:
        with _advisory_lock(database) as is_ours:
            yield is_ours
        return
    path = database.engine.url.database
    if not path or path == ":memory:":
        yield lambda: True
        return
    handle = os.open(Path(path).with_suffix(".facts.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        is_locked = False
    else:
        is_locked = True
    try:
        yield lambda: is_locked
    finally:
        os.close(handle)


@contextlib.contextmanager
def _advisory_lock(database: Database) -> Iterator[Callable[[], bool]]:
    """Hold a lock of a database session: it falls when the connection does, however that ends."""
    with database.engine.connect() as connection:
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")
        found = connection.execute(
            text("SELECT pg_try_advisory_lock(:key)"), {"key": ADVISORY_LOCK}
        ).scalar_one()

        def is_ours() -> bool:
            # A lost connection raises here, and with it the lock is gone.
            return bool(found) and connection.execute(text("SELECT true")).scalar_one() is True

        try:
            yield is_ours
        finally:
            # Not back into the pool with the lock on it.
            connection.invalidate()
