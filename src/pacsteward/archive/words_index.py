"""An index for what stands in the middle of a text: ``*smith*`` in a name, ``*4711*`` in a number.

Viewers put wild cards around everything that is typed into their search fields, so this is the
usual query, not the exotic one. An ordinary index serves only the beginning of a text. SQLite gets
a full-text table of trigrams beside the table, PostgreSQL a ``pg_trgm`` index; both only narrow
down the candidates, and the exact condition is always part of the query as well.

Triggers keep SQLite's table in step, so whoever writes the index need not know of it. Where a
PostgreSQL server has no ``pg_trgm``, there is no such index: queries are slower, answers the same.

References
----------
https://sqlite.org/fts5.html#the_trigram_tokenizer, https://www.postgresql.org/docs/15/pgtrgm.html
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from sqlalchemy import DDL, Table, event

from pacsteward.archive.tables import PATIENT, STUDY

SEARCHED: Final[Mapping[Table, tuple[str, ...]]] = {
    PATIENT: ("patient_name_words", "patient_id"),
    STUDY: (
        "patient_name_words",
        "patient_id",
        "accession_number",
        "study_description_words",
        "referring_physician_name_words",
    ),
}
"""The columns that are searched in the middle, by table."""

SHORTEST: Final = 3
"""Fewer characters in a row make no trigram, so they cannot be looked up."""


def words_table(table: Table) -> str:
    """Return the name of SQLite's full-text table for `table`."""
    return f"{table.name}_trigrams"


def statements(dialect: str) -> Iterator[str]:
    """Give what creates the index, for a migration and for tests alike.

    Parameters
    ----------
    dialect
        ``"sqlite"`` or ``"postgresql"``.
    """
    for table, columns in SEARCHED.items():
        yield from _for_table(dialect, table, columns)


def _for_table(dialect: str, table: Table, columns: tuple[str, ...]) -> Iterator[str]:
    if dialect == "sqlite":
        yield from _sqlite(table, columns)
    elif dialect == "postgresql":
        yield _postgresql(table, columns)


def _sqlite(table: Table, columns: tuple[str, ...]) -> Iterator[str]:
    index = words_table(table)
    key = f"{table.name}_key"
    names = ", ".join(columns)
    new = ", ".join(f"new.{column}" for column in columns)
    old = ", ".join(f"old.{column}" for column in columns)
    changed = " OR ".join(f"new.{column} IS NOT old.{column}" for column in columns)
    insert = f"INSERT INTO {index} (rowid, {names}) VALUES (new.{key}, {new});"  # noqa: S608
    delete = f"INSERT INTO {index} ({index}, rowid, {names}) VALUES ('delete', old.{key}, {old});"  # noqa: S608
    yield (
        f"CREATE VIRTUAL TABLE IF NOT EXISTS {index} USING fts5("
        f"{names}, content='{table.name}', content_rowid='{key}', tokenize='trigram')"
    )
    yield (
        f"CREATE TRIGGER IF NOT EXISTS {index}_insert AFTER INSERT ON {table.name} "
        f"BEGIN {insert} END"
    )
    yield (
        f"CREATE TRIGGER IF NOT EXISTS {index}_delete AFTER DELETE ON {table.name} "
        f"BEGIN {delete} END"
    )
    # Counters of a study change with every batch; its words hardly ever.
    yield (
        f"CREATE TRIGGER IF NOT EXISTS {index}_update AFTER UPDATE OF {names} ON {table.name} "
        f"WHEN {changed} BEGIN {delete} {insert} END"
    )


def _postgresql(table: Table, columns: tuple[str, ...]) -> str:
    # With fastupdate new entries would wait in a list that every search has to read through:
    # twelve times slower searches for insertions that are rare (tried with 20,000 studies).
    indexes = " ".join(
        f"CREATE INDEX IF NOT EXISTS ix_{table.name}_{column}_trigrams "
        f"ON {table.name} USING gin ({column} gin_trgm_ops) WITH (fastupdate = off);"
        for column in columns
    )
    return (
        "DO $$ BEGIN IF EXISTS "  # noqa: S608
        "(SELECT 1 FROM pg_available_extensions WHERE name = 'pg_trgm') THEN "
        f"CREATE EXTENSION IF NOT EXISTS pg_trgm; {indexes} END IF; END $$"
    )


def _declare() -> None:
    """Create the index together with the tables."""
    for table, columns in SEARCHED.items():
        for dialect in ("sqlite", "postgresql"):
            for statement in _for_table(dialect, table, columns):
                ddl = DDL(statement.replace("%", "%%"))  # type: ignore[no-untyped-call]
                event.listen(table, "after_create", ddl.execute_if(dialect=dialect))


_declare()
