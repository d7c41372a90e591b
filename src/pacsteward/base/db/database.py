"""Reading and writing: one transaction is one unit of work.

`Database.read` gives a connection that sees one consistent state; `Database.write` gives one whose
changes are kept together when the block ends, or not at all. Both block: call them from threads,
never from an event loop.

On SQLite a writer takes its lock at once (``BEGIN IMMEDIATE``), since a reader that turns into a
writer half way can only fail (https://sqlite.org/lang_transaction.html).
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, Engine, Table, create_engine, event, exists, inspect, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, InvalidatePoolError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import QueuePool

from pacsteward.base.db.look import Look, Looks, unavailable
from pacsteward.base.db.patience import BUSY_TIMEOUT_S, begin_immediate
from pacsteward.base.errors import Broken, Forbidden, Unavailable, WouldWait
from pacsteward.base.late import late

if TYPE_CHECKING:
    from pacsteward.base.db import wire
else:
    wire = late("pacsteward.base.db.wire")

CONNECTIONS_MAX = 32
"""Of one process, at a time; looks have connections of their own (`look.py`)."""

_KEPT = 8
"""So many of them stay open when they are not needed."""

POSTGRES_WIRE = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""How long a PostgreSQL server that went away unseen is waited for: in seconds, the last one in
milliseconds. libpq itself would wait for ever to connect, and a quarter of an hour for an answer.
What the URL says goes first. https://www.postgresql.org/docs/current/libpq-connect.html"""


class Database:
    """An open database; share one in a process.

    Parameters
    ----------
    engine
        Made by `open_database`.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.is_sqlite = engine.dialect.name == "sqlite"
        self._no_writing = ""
        self._looks = Looks(engine)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Give a connection for reading one consistent state."""
        with self._translated(), self.engine.connect() as connection:
            if self.is_sqlite:
                connection.exec_driver_sql("BEGIN")
            else:
                connection.execution_options(
                    isolation_level="REPEATABLE READ", postgresql_readonly=True
                )
            yield connection
            connection.rollback()

    def look(self, *, timeout_s: float | None = None) -> AbstractContextManager[Look]:
        """Give the driver's own connection for a short question, in one consistent state.

        Parameters
        ----------
        timeout_s
            How long one statement (on SQLite, the whole look) may take, in seconds.

        Raises
        ------
        Unavailable
            The database does not answer, or was stopped after `timeout_s`; see `was_stopped`.
        """
        return self._looks.look(timeout_s)

    def glance(
        self,
        statement: str,
        parameters: Sequence[object] = (),
        *,
        timeout_s: float | None = None,
    ) -> list[tuple[Any, ...]]:
        """Return the rows of one short statement, with the parameter marks of the driver.

        The cheapest question there is: not even a transaction is begun for it.

        Parameters
        ----------
        timeout_s
            How long it may take, in seconds.

        Raises
        ------
        Unavailable
            The database does not answer, or was stopped after `timeout_s`; see `was_stopped`.
        """
        return self._looks.glance(statement, parameters, timeout_s)

    @property
    def is_near(self) -> bool:
        """Whether a short question may be put to it on an event loop; see `at_once`."""
        return self._looks.is_near

    def at_once(
        self,
        statement: str,
        parameters: Sequence[object] = (),
        *,
        within_s: float | None = None,
        timeout_s: float | None = None,
        is_in_memory: bool = False,
    ) -> list[tuple[Any, ...]]:
        """Return what `glance` does, for whoever may not wait.

        Parameters
        ----------
        within_s
            How long the embedded database may take, in seconds; None for a question that cannot
            take long. Of a PostgreSQL server on this machine the answer is waited for a little
            longer (`look.PATIENCE_S`).
        timeout_s
            With which `glance` is asked otherwise: the connections are the same.
        is_in_memory
            Of what is asked for all the time, so that no disk is: it is put to an embedded
            database also while other questions are left to threads.

        Raises
        ------
        WouldWait
            It took longer, or the database is not on this machine, or does not answer; or no
            connection to it is at hand, as in a new process. The `glance` that is asked instead
            opens one and leaves it to the next who comes.
        """
        if is_in_memory and self.is_sqlite:
            return self._looks.from_memory(statement, parameters)
        if not self.is_near:
            raise WouldWait
        return self._looks.at_once(statement, parameters, within_s=within_s, timeout_s=timeout_s)

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[Connection]:
        """Give a connection whose changes are committed when the block ends without an error.

        Parameters
        ----------
        durable
            False lets the commit come back before it is on the disk, for what can be made again
            from elsewhere (the index, which the landing log can always rebuild).
        """
        if self._no_writing:
            raise Forbidden("Nothing was changed.", why=self._no_writing)
        asked_at = time.monotonic()
        with self._translated(), self.engine.connect() as connection:
            if self.is_sqlite:
                level = "FULL" if durable else "NORMAL"
                connection.exec_driver_sql(f"PRAGMA synchronous={level}")
                begin_immediate(connection, asked_at)
            elif not durable:
                # The driver, and with it SQLAlchemy, goes on in a transaction that has begun.
                wire.begin_unsynced(_driver_of(connection))
            yield connection
            connection.commit()

    def holds_any(self, *tables: Table) -> bool:
        """Say whether one of `tables` is there and has a row."""
        with self.read() as connection:
            there = inspect(connection)
            return any(
                there.has_table(table.name)
                and connection.execute(select(exists().select_from(table))).scalar()
                for table in tables
            )

    def forbid_writing(self, why: str) -> None:
        """Refuse every `write` from now on; `why` is what the caller reads."""
        self._no_writing = why

    def close(self) -> None:
        """Let go of all connections."""
        self._looks.close()
        self.engine.dispose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except PoolTimeoutError as error:
            raise unavailable(error) from error
        except OperationalError as error:
            raise unavailable(error.orig or error) from error
        except self._driver_error as error:
            raise unavailable(error) from error
        except DBAPIError as error:
            if getattr(error.orig, "sqlite_errorname", "") in _NO_DATABASE:
                raise Broken(
                    "The index cannot be read.",
                    why=f"SQLite says: {error.orig}.",
                    remedy="Put index.db of the backup in its place. The images lie elsewhere and "
                    "are not touched; without a backup move the file away and run `pacsteward "
                    "archive rebuild`: people, peers and audit book begin anew then.",
                ) from error
            if error.connection_invalidated:
                raise Unavailable(
                    "The connection to the database was lost.", remedy="Try again."
                ) from error
            raise

    @property
    def _driver_error(self) -> type[Exception]:
        error: type[Exception] = self.engine.dialect.loaded_dbapi.OperationalError
        return error


def _driver_of(connection: Connection) -> Any:
    return connection.connection.driver_connection


_NO_DATABASE: Final = frozenset({"SQLITE_NOTADB", "SQLITE_CORRUPT"})


def open_database(url: str | Path, *, connections_max: int = CONNECTIONS_MAX) -> Database:
    """Open the database at `url`.

    Parameters
    ----------
    url
        A path of an SQLite file, which is made if it is missing, or a ``postgresql://…`` URL.
    connections_max
        To a PostgreSQL.
    """
    if isinstance(url, Path) or "://" not in url:
        return Database(_sqlite_engine(Path(url)))
    if url.startswith("postgresql://"):
        url = url.replace("postgresql://", "postgresql+psycopg://", 1)
    given = make_url(url).query
    engine = create_engine(
        url,
        pool_size=min(_KEPT, connections_max),
        max_overflow=max(0, connections_max - _KEPT),
        pool_timeout=BUSY_TIMEOUT_S,
        # The one that was used last has the statements prepared.
        pool_use_lifo=True,
        hide_parameters=True,
        connect_args={name: value for name, value in POSTGRES_WIRE.items() if name not in given},
    )

    @event.listens_for(engine, "checkout")
    def look(connection: Any, _record: Any, _proxy: Any) -> None:
        if wire.is_lost(connection):
            raise InvalidatePoolError

    return Database(engine)


def _sqlite_engine(path: Path) -> Engine:
    path.parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        f"sqlite:///{path}",
        poolclass=QueuePool,
        pool_size=_KEPT,
        max_overflow=CONNECTIONS_MAX - _KEPT,
        pool_timeout=BUSY_TIMEOUT_S,
        # What an error quotes goes into the log, and parameters may be patient data.
        hide_parameters=True,
        connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _record: Any) -> None:
        # The driver would begin transactions of its own, too late and of the wrong kind.
        connection.isolation_level = None
        _switch_to_wal(connection)
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA temp_store=MEMORY")
        # Pages that are only read come from the mapped file. What is kept besides is forgotten at
        # every write of another connection, and each connection fills its own.
        connection.execute("PRAGMA cache_size=-4000")
        connection.execute("PRAGMA mmap_size=268435456")

    return engine


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """Have readers and the writer not wait for each other.

    A new file that several processes open at the same moment cannot be switched by one while
    another looks at it, and SQLite says so at once instead of waiting as it does elsewhere.
    """
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
