"""Rows into a table, unless their key is taken: SQLAlchemy has two of it, one for each database."""

from __future__ import annotations

import importlib

from sqlalchemy import Connection, Insert, Table


def insert_new(connection: Connection, table: Table, *key: str) -> Insert:
    """Return the statement that leaves a row away whose key is taken.

    Parameters
    ----------
    key
        Columns of the constraint that says which rows are the same; none means every constraint.
    """
    # The connection has loaded its own dialect; PostgreSQL's is not loaded where nobody has one.
    dialect = importlib.import_module(f"sqlalchemy.dialects.{connection.dialect.name}")
    statement: Insert = dialect.insert(table).on_conflict_do_nothing(
        index_elements=list(key) or None
    )
    return statement
