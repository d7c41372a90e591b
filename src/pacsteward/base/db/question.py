"""A question that is asked over and over, for the price of the database's answer alone.

Before an instance is acknowledged the archive asks whether its UID is known. The answer takes the
database some microseconds; a connection from the pool, a transaction and a compiled statement take
ten times as long. So such a question keeps a connection of its own and speaks to the driver, or to
PostgreSQL's own library (`wire.py`).
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from pacsteward.base.db.database import Database
from pacsteward.base.db.look import unavailable
from pacsteward.base.late import late

if TYPE_CHECKING:
    from pacsteward.base.db import wire
else:
    wire = late("pacsteward.base.db.wire")


class Question:
    """Plain SQL for each kind of database, asked by one thread at a time.

    Parameters
    ----------
    sqlite, postgresql
        The statement in the words of each, with the parameter marks of its driver.
    """

    def __init__(self, database: Database, *, sqlite: str, postgresql: str) -> None:
        self._database = database
        self._statement = sqlite if database.is_sqlite else postgresql
        self._connection: Any = None

    def ask(self, *parameters: Any) -> list[tuple[Any, ...]]:
        """Return the rows of the answer, as they are at this moment.

        Raises
        ------
        Unavailable
            The database does not answer.
        """
        if self._connection is not None:
            try:
                return self._ask(parameters)
            except self._driver_error:
                # It may have been restarted since: a new connection tells.
                self.close()
        try:
            self._connection = self._connect()
            return self._ask(parameters)
        except (self._driver_error, DBAPIError, PoolTimeoutError) as error:
            self.close()
            raise unavailable(error) from error

    def close(self) -> None:
        """Let the connection go."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(self._driver_error):  # it may be gone already
                connection.close()

    def _ask(self, parameters: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]]
        if self._database.is_sqlite:
            rows = self._connection.execute(self._statement, parameters).fetchall()
        else:
            rows = self._connection.rows(self._statement, parameters)
        return rows

    def _connect(self) -> Any:
        pooled = self._database.engine.raw_connection()
        pooled.detach()
        connection: Any = pooled.dbapi_connection
        return connection if self._database.is_sqlite else wire.Wire(connection)

    @property
    def _driver_error(self) -> type[Exception]:
        error: type[Exception] = self._database.engine.dialect.loaded_dbapi.Error
        return error
