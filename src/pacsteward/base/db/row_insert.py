"""Many rows into one table, in the caller's transaction, for the price of the driver's work.

SQLAlchemy takes longer to turn a row of thirty columns into parameters than SQLite does to write
it. For the few tables that grow by thousands of rows a second the statement is written once for
each kind of database, and rows go to the driver as they are; PostgreSQL gets all of them at once
(`recordset.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Dialect, Table

from pacsteward.base.db.recordset import Recordset

Convert = Callable[[Any], Any]


class RowInsert:
    """Inserts rows, in their order.

    Parameters
    ----------
    columns
        At least two; what is left out gets its default.
    key
        Columns of the constraint that says which rows are the same: those whose key is taken are
        left as they are. Without it none may be taken.
    """

    def __init__(self, table: Table, columns: Sequence[str], *, key: Sequence[str] = ()) -> None:
        self._table = table
        self._columns = tuple(columns)
        self._key = tuple(key)
        self._values = itemgetter(*self._columns)
        self._to_sqlite: tuple[str, list[tuple[int, Convert]]] | None = None
        self._to_postgresql: tuple[str, Recordset] | None = None

    def execute(self, connection: Connection, rows: Iterable[Mapping[str, Any]]) -> None:
        """Insert rows; each has a value for every column."""
        self.execute_values(connection, [self._values(row) for row in rows])

    def execute_values(self, connection: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert rows that are given as values in the order of `columns`."""
        if not rows:
            return
        if connection.dialect.name == "postgresql":
            if self._to_postgresql is None:
                self._to_postgresql = self._for_postgresql(connection.dialect)
            statement, recordset = self._to_postgresql
            connection.exec_driver_sql(statement, (recordset.written(rows),))
            return
        if self._to_sqlite is None:
            self._to_sqlite = self._for_sqlite(connection.dialect)
        statement, conversions = self._to_sqlite
        if conversions:
            rows = [_converted(values, conversions) for values in rows]
        connection.exec_driver_sql(statement, list(rows))

    def _for_postgresql(self, dialect: Dialect) -> tuple[str, Recordset]:
        recordset = Recordset([self._table.c[name] for name in self._columns], dialect)
        words = (
            self._into(dialect),
            "SELECT",
            ", ".join(recordset.names),
            "FROM",
            recordset.source,
            # What counts up by itself counts in this order.
            "ORDER BY number",
            self._unless_taken(dialect),
        )
        return " ".join(words), recordset

    def _for_sqlite(self, dialect: Dialect) -> tuple[str, list[tuple[int, Convert]]]:
        """Write the statement, and find the columns that SQLite keeps otherwise."""
        words = (
            self._into(dialect),
            "VALUES",
            _listed("?" for _ in self._columns),
            self._unless_taken(dialect),
        )
        conversions: list[tuple[int, Convert]] = []
        for place, name in enumerate(self._columns):
            convert = self._table.c[name].type.dialect_impl(dialect).bind_processor(dialect)
            if convert is not None:
                conversions.append((place, convert))
        return " ".join(words), conversions

    def _into(self, dialect: Dialect) -> str:
        quote = dialect.identifier_preparer.quote
        return f"INSERT INTO {quote(self._table.name)} {_listed(map(quote, self._columns))}"

    def _unless_taken(self, dialect: Dialect) -> str:
        if not self._key:
            return ""
        quote = dialect.identifier_preparer.quote
        return f"ON CONFLICT {_listed(map(quote, self._key))} DO NOTHING"


def _listed(words: Iterable[str]) -> str:
    return f"({', '.join(words)})"


def _converted(
    values: tuple[Any, ...], conversions: Sequence[tuple[int, Convert]]
) -> tuple[Any, ...]:
    changed = list(values)
    for place, convert in conversions:
        changed[place] = convert(changed[place])
    return tuple(changed)
