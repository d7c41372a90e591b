"""The rows of new instances: what they are, and where their bytes lie.

There are as many of them as of everything else together, so their statements are written by hand.
SQLite writes a row for each call, asks for the keys that it gave, and writes the places. For
PostgreSQL all that is one statement.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Final

from sqlalchemy import Connection, Dialect

from pacsteward.archive.digest import Row
from pacsteward.archive.known import uid_rows
from pacsteward.archive.landing import Landed
from pacsteward.archive.tables import INSTANCE, LOCATION
from pacsteward.base.db import Recordset, RowInsert


class Raced(Exception):
    """Another node wrote one of the instances meanwhile; write the batch again."""


_COLUMNS: Final = tuple(
    column.name for column in INSTANCE.c if column.name not in ("instance_key", "rejected_for")
)
_PLACE: Final = (
    "copy_number",
    "container_kind",
    "container",
    "generation",
    "offset",
    "length",
    "file_meta",
)

_INSERT_INSTANCES: Final = RowInsert(INSTANCE, _COLUMNS, key=["sop_instance_uid"])
_INSERT_LOCATIONS: Final = RowInsert(
    LOCATION, ("instance_key", *_PLACE), key=["instance_key", "copy_number"]
)
_values: Final = itemgetter(*_COLUMNS)
_OWN_KEYS: Final = {
    # CROSS JOIN says to SQLite that the UIDs are what is walked along.
    "sqlite": (
        "SELECT instance.sop_instance_uid, instance.instance_key "
        "FROM json_each(?) AS wanted CROSS JOIN instance "
        "ON instance.sop_instance_uid = wanted.value "
        "LEFT JOIN location ON location.instance_key = instance.instance_key "
        "WHERE location.instance_key IS NULL"
    ),
}


def insert_instances(connection: Connection, rows: Sequence[Row], landed: Sequence[Landed]) -> None:
    """Insert instances that the index lacks, and the places of their bytes.

    Parameters
    ----------
    rows
        For the columns of `tables.INSTANCE`.
    landed
        The same instances, as they lie in the log.

    Raises
    ------
    Raced
        It has one of them by now.
    """
    if connection.dialect.name == "postgresql":
        _insert_at_once(connection, rows, landed)
        return
    _INSERT_INSTANCES.execute(connection, rows)
    # Those without a location are the ones just written; another node's came with theirs.
    uids = [row["sop_instance_uid"] for row in rows]
    keys: dict[str, int] = {row[0]: row[1] for row in uid_rows(connection, _OWN_KEYS, uids)}
    if len(keys) != len(rows):
        raise Raced
    places = [(keys[uid], *_place_of(one)) for uid, one in zip(uids, landed, strict=True)]
    _INSERT_LOCATIONS.execute_values(connection, places)


def _insert_at_once(connection: Connection, rows: Sequence[Row], landed: Sequence[Landed]) -> None:
    statement, recordset = _both(connection.dialect)
    given = recordset.written(
        (*_values(row), *_place_of(one)) for row, one in zip(rows, landed, strict=True)
    )
    if connection.exec_driver_sql(statement, (given,)).rowcount != len(rows):
        raise Raced


@lru_cache(maxsize=1)
def _both(dialect: Dialect) -> tuple[str, Recordset]:
    """Write the statement that inserts into both tables.

    A place is written for each instance that was, so what it counts is what was new.
    """
    columns = [INSTANCE.c[name] for name in _COLUMNS] + [LOCATION.c[name] for name in _PLACE]
    recordset = Recordset(columns, dialect)
    quote = dialect.identifier_preparer.quote
    names = recordset.names
    own, place = names[: len(_COLUMNS)], names[len(_COLUMNS) :]
    uid = names[_COLUMNS.index("sop_instance_uid")]
    statement = (
        f"WITH wanted AS MATERIALIZED (SELECT * FROM {recordset.source}), "  # noqa: S608
        f"written AS (INSERT INTO instance ({', '.join(map(quote, _COLUMNS))}) "
        f"SELECT {', '.join(own)} FROM wanted ORDER BY number "
        "ON CONFLICT (sop_instance_uid) DO NOTHING RETURNING sop_instance_uid, instance_key) "
        f"INSERT INTO location (instance_key, {', '.join(map(quote, _PLACE))}) "
        f"SELECT written.instance_key, {', '.join(place)} "
        f"FROM written JOIN wanted ON wanted.{uid} = written.sop_instance_uid"
    )
    return statement, recordset


def _place_of(landed: Landed) -> tuple[object, ...]:
    place = landed.location
    return (
        0,
        place.container_kind,
        place.container,
        place.generation,
        place.offset,
        place.length,
        landed.file_meta,
    )
