"""What the index knows of a UID, and how far it has come.

Small questions that the arbiter, the indexer and the verbs ask in common.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Table, bindparam, exists, insert, select, update

from pacsteward.archive.counters import chunks
from pacsteward.archive.gaps import Gap
from pacsteward.archive.model import Location
from pacsteward.archive.tables import (
    CONFLICT,
    INSTANCE,
    LANDING_POSITION,
    LEDGER_POSITION,
    LOCATION,
    SET_ASIDE,
)
from pacsteward.base.db import Database, Question


@dataclass(frozen=True, slots=True)
class Known:
    """Content that is stored under a UID."""

    size_bytes: int
    checksum: int
    transfer_syntax_uid: str
    location: Location
    rejected_for: str = ""


_PLACE: Final = ("container_kind", "container", "generation", "offset", "length")

_INSTANCES: Final = (
    select(
        INSTANCE.c.sop_instance_uid,
        INSTANCE.c.size_bytes,
        INSTANCE.c.checksum,
        INSTANCE.c.transfer_syntax_uid,
        INSTANCE.c.rejected_for,
        *(LOCATION.c[name] for name in _PLACE),
    )
    .join(LOCATION, LOCATION.c.instance_key == INSTANCE.c.instance_key)
    .where(INSTANCE.c.sop_instance_uid.in_(bindparam("uids", expanding=True)))
    .where(LOCATION.c.copy_number == 0)
)
_CONFLICTS: Final = select(
    CONFLICT.c.sop_instance_uid,
    CONFLICT.c.checksum,
    CONFLICT.c.transfer_syntax_uid,
    *(CONFLICT.c[name] for name in _PLACE),
).where(CONFLICT.c.sop_instance_uid.in_(bindparam("uids", expanding=True)))


_PRESENT: Final = {
    "sqlite": (
        "SELECT sop_instance_uid FROM instance "
        "WHERE sop_instance_uid IN (SELECT value FROM json_each(?))"
    ),
    "postgresql": (
        "SELECT sop_instance_uid FROM instance WHERE sop_instance_uid = ANY(%s::varchar[])"
    ),
}
_NEIGHBOURS: Final = (
    "(SELECT max(sop_instance_uid) FROM instance WHERE sop_instance_uid <= wanted.value), "
    "(SELECT min(sop_instance_uid) FROM instance WHERE sop_instance_uid > wanted.value)"
)
_TAKEN: Final = {
    "sqlite": f"SELECT wanted.value, {_NEIGHBOURS} FROM json_each(?) AS wanted",  # noqa: S608
    "postgresql": (
        f"SELECT wanted.value, {_NEIGHBOURS} FROM unnest(%s::varchar[]) AS wanted(value)"  # noqa: S608
    ),
}
_BEHIND_ALL: Final = "~"
"""No UID begins with this or what comes after it."""


class TakenUids:
    """Says which SOP Instance UIDs the index has; for one thread, which asks for every batch."""

    def __init__(self, database: Database) -> None:
        self._question = Question(database, **_TAKEN)
        self._written = json.dumps if database.is_sqlite else text_array

    def among(self, uids: list[str]) -> tuple[set[str], dict[str, Gap]]:
        """Return those of these UIDs that are taken, and where the others would lie.

        Raises
        ------
        Unavailable
            The database does not answer.
        """
        taken: set[str] = set()
        gaps: dict[str, Gap] = {}
        for uid, below, above in self._question.ask(self._written(uids)):
            if below == uid:
                taken.add(uid)
            else:
                gaps[uid] = Gap(below or "", above or _BEHIND_ALL)
        return taken, gaps

    def close(self) -> None:
        """Let the connection go."""
        self._question.close()


def known_instances(connection: Connection, uids: Sequence[str]) -> dict[str, Known]:
    """Return what the index has of these SOP Instance UIDs."""
    found = {}
    # Hardly ever any of a batch, which one plain statement says.
    for chunk in chunks(row[0] for row in uid_rows(connection, _PRESENT, uids)):
        for row in connection.execute(_INSTANCES, {"uids": chunk}):
            uid, size_bytes, checksum, syntax, rejected_for, *place = row
            found[uid] = Known(size_bytes, checksum, syntax, Location(*place), rejected_for)
    return found


def uid_rows(
    connection: Connection, statements: Mapping[str, str], uids: Sequence[str]
) -> Sequence[Any]:
    """Return the rows of a statement in plain SQL that takes UIDs, however many.

    Parameters
    ----------
    statements
        By kind of database: SQLite takes the UIDs as one JSON text, PostgreSQL as an array.
    """
    kind = connection.dialect.name
    parameter = json.dumps(uids) if kind == "sqlite" else text_array(uids)
    return connection.exec_driver_sql(statements[kind], (parameter,)).all()


def text_array(texts: Sequence[str]) -> str:
    """Return texts as PostgreSQL reads an array of them; the driver takes longer for a list.

    References
    ----------
    https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO
    """
    quoted = (text.replace("\\", "\\\\").replace('"', '\\"') for text in texts)
    return "{" + ",".join(f'"{text}"' for text in quoted) + "}"


def known_conflicts(connection: Connection, uids: Sequence[str]) -> dict[str, list[Known]]:
    """Return the other contents that are kept under these SOP Instance UIDs."""
    found: dict[str, list[Known]] = defaultdict(list)
    for chunk in chunks(uids):
        for row in connection.execute(_CONFLICTS, {"uids": chunk}):
            uid, checksum, syntax, *place = row
            location = Location(*place)
            found[uid].append(Known(location.length, checksum, syntax, location))
    return found


def is_set_aside(connection: Connection, uid: str) -> bool:
    """Whether a content that could not be indexed is kept under this SOP Instance UID."""
    query = select(exists().where(SET_ASIDE.c.sop_instance_uid == uid))
    return bool(connection.execute(query).scalar())


def place_of(location: Location) -> dict[str, Any]:
    """Return a location as the columns that several tables have for it."""
    return {name: getattr(location, name) for name in _PLACE}


def landing_position(connection: Connection, node: str) -> int:
    """Return how far the index has come in the landing log of a node."""
    return _position(connection, LANDING_POSITION, node)


def ledger_position(connection: Connection, node: str) -> int:
    """Return how far the ledger of a node has been applied to the index."""
    return _position(connection, LEDGER_POSITION, node)


def move_landing_position(connection: Connection, node: str, sequence: int) -> None:
    """Say in the same transaction how far the index has come."""
    _move(connection, LANDING_POSITION, node, sequence)


def move_ledger_position(connection: Connection, node: str, sequence: int) -> None:
    """Say in the same transaction how far the ledger is applied."""
    _move(connection, LEDGER_POSITION, node, sequence)


def touch_landing_position(connection: Connection, node: str) -> None:
    """Write the position as it is, so that the transaction has something to make durable."""
    connection.execute(
        update(LANDING_POSITION)
        .where(LANDING_POSITION.c.node == node)
        .values(sequence=LANDING_POSITION.c.sequence)
    )


def _position(connection: Connection, table: Table, node: str) -> int:
    found = connection.execute(select(table.c.sequence).where(table.c.node == node)).scalar()
    return int(found or 0)


def _move(connection: Connection, table: Table, node: str, sequence: int) -> None:
    moved = connection.execute(update(table).where(table.c.node == node).values(sequence=sequence))
    if moved.rowcount == 0:
        connection.execute(insert(table).values(node=node, sequence=sequence))
