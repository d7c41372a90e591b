"""Many rows into one table, in the caller's transaction, for the price of the driver's work.

SQLAlchemy takes longer to turn a row of thirty columns into parameters than SQLite does to write
it. For the few tables that grow by thousands of rows a second the statement is written once for
each kind of database, and rows go to the driver as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Dialect, Table

Convert = Callable[[Any], Any]


class RowInsert:
    """Inserts rows whose key is not taken; those whose key is are left as they are.

    Parameters
    ----------
    columns
        At least two; what is left out gets its default.
    key
        Columns of the constraint that says which rows are the same.
    """

    def __init__(self, table: Table, columns: Sequence[str], *, key: Sequence[str]) -> None:
        self._table = table
        self._columns = tuple(columns)
        self._key = tuple(key)
        self._values = itemgetter(*self._columns)
        self._prepared: dict[str, tuple[str, list[tuple[int, Convert]]]] = {}

    def execute(self, connection: Connection, rows: Iterable[Mapping[str, Any]]) -> None:
        """Insert rows; each has a value for every column."""
        self.execute_values(connection, [self._values(row) for row in rows])

    def execute_values(self, connection: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        """Insert rows that are given as values in the order of `columns`."""
        if not rows:
            return
        dialect = connection.dialect
        prepared = self._prepared.get(dialect.name)
        if prepared is None:
            prepared = self._prepared[dialect.name] = self._prepare(dialect)
        statement, conversions = prepared
        if conversions:
            rows = [_converted(values, conversions) for values in rows]
        connection.exec_driver_sql(statement, list(rows))

    def _prepare(self, dialect: Dialect) -> tuple[str, list[tuple[int, Convert]]]:
        """Write the statement, and find the columns that this kind of database keeps otherwise."""
        quote = dialect.identifier_preparer.quote
        mark = "%s" if dialect.paramstyle in ("format", "pyformat") else "?"
        words = (
            "INSERT INTO",
            quote(self._table.name),
            _listed(quote(name) for name in self._columns),
            "VALUES",
            _listed(mark for _ in self._columns),
            "ON CONFLICT",
            _listed(quote(name) for name in self._key),
            "DO NOTHING",
        )
        conversions: list[tuple[int, Convert]] = []
        for place, name in enumerate(self._columns):
            convert = self._table.c[name].type.dialect_impl(dialect).bind_processor(dialect)
            if convert is not None:
                conversions.append((place, convert))
        return " ".join(words), conversions


def _listed(words: Iterable[str]) -> str:
    return f"({', '.join(words)})"


def _converted(
    values: tuple[Any, ...], conversions: Sequence[tuple[int, Convert]]
) -> tuple[Any, ...]:
    changed = list(values)
    for place, convert in conversions:
        changed[place] = convert(changed[place])
    return tuple(changed)
