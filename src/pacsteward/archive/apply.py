"""What an entry of the ledger means to the index.

Used when a verb is carried out, when the keeper starts after a crash between ledger and index, and
when the index is made anew; so the three always agree. Applying an entry again changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Final

from sqlalchemy import Connection, delete, exists, select, update

from pacsteward.archive.counters import chunks, recount
from pacsteward.archive.ledger import LedgerEntry
from pacsteward.archive.model import Location
from pacsteward.archive.tables import (
    CONFLICT,
    INSTANCE,
    LOCATION,
    PATIENT,
    SERIES,
    SET_ASIDE,
    STUDY,
)
from pacsteward.base.errors import Unsupported


def apply_entry(connection: Connection, entry: LedgerEntry, now: datetime) -> None:
    """Make the index say what `entry` decided.

    Raises
    ------
    Unsupported
        A later version wrote it.
    """
    act = _ACTS.get(entry.kind)
    if act is None:
        raise Unsupported(
            f"Entry {entry.sequence} of the ledger is not understood.",
            why=f"Its kind is {entry.kind!r}, which this version does not know.",
            remedy="Run the version that wrote it, or a later one.",
        )
    studies = studies_of(connection, entry.sop_instance_uids)
    act(connection, entry)
    remaining = _without_empty(connection, studies)
    recount(connection, remaining, now)


def locations_of(connection: Connection, uids: Sequence[str]) -> list[Location]:
    """Return where all bytes under these UIDs are: copies, conflicting contents, set aside ones."""
    found: list[Location] = []
    for chunk in chunks(uids):
        copies = (
            select(
                LOCATION.c.container_kind,
                LOCATION.c.container,
                LOCATION.c.generation,
                LOCATION.c.offset,
                LOCATION.c.length,
            )
            .join(INSTANCE, INSTANCE.c.instance_key == LOCATION.c.instance_key)
            .where(INSTANCE.c.sop_instance_uid.in_(chunk))
        )
        others = [
            select(
                table.c.container_kind,
                table.c.container,
                table.c.generation,
                table.c.offset,
                table.c.length,
            ).where(table.c.sop_instance_uid.in_(chunk))
            for table in (CONFLICT, SET_ASIDE)
        ]
        for query in (copies, *others):
            found += [Location(*row) for row in connection.execute(query)]
    return found


def studies_of(connection: Connection, uids: Sequence[str]) -> list[int]:
    """Return the keys of the studies of these instances."""
    keys: set[int] = set()
    for chunk in chunks(uids):
        query = (
            select(SERIES.c.study_key)
            .distinct()
            .join(INSTANCE, INSTANCE.c.series_key == SERIES.c.series_key)
            .where(INSTANCE.c.sop_instance_uid.in_(chunk))
        )
        keys.update(connection.execute(query).scalars())
    ordered = sorted(keys)
    for chunk_of_keys in chunks(ordered):
        # Nobody adds to these studies until this transaction ends (PostgreSQL; SQLite has one
        # writer anyway).
        connection.execute(
            select(STUDY.c.study_key).where(STUDY.c.study_key.in_(chunk_of_keys)).with_for_update()
        )
    return ordered


def _reject(connection: Connection, entry: LedgerEntry) -> None:
    _mark(connection, entry, entry.details["code"])


def _restore(connection: Connection, entry: LedgerEntry) -> None:
    _mark(connection, entry, "")


def _mark(connection: Connection, entry: LedgerEntry, rejected_for: str) -> None:
    for chunk in chunks(entry.sop_instance_uids):
        connection.execute(
            update(INSTANCE)
            .where(INSTANCE.c.sop_instance_uid.in_(chunk))
            .values(rejected_for=rejected_for)
        )


def _delete(connection: Connection, entry: LedgerEntry) -> None:
    for chunk in chunks(entry.sop_instance_uids):
        keys = select(INSTANCE.c.instance_key).where(INSTANCE.c.sop_instance_uid.in_(chunk))
        connection.execute(delete(LOCATION).where(LOCATION.c.instance_key.in_(keys)))
        for table in (INSTANCE, CONFLICT, SET_ASIDE):
            connection.execute(delete(table).where(table.c.sop_instance_uid.in_(chunk)))


_ACTS: Final[Mapping[str, Callable[[Connection, LedgerEntry], None]]] = MappingProxyType(
    {"rejected": _reject, "restored": _restore, "deleted": _delete}
)


def _without_empty(connection: Connection, study_keys: Sequence[int]) -> list[int]:
    """Remove series, studies and patients of which nothing is left; return the studies left."""
    remaining: list[int] = []
    for keys in chunks(study_keys):
        patients = list(
            connection.execute(
                select(STUDY.c.patient_key).distinct().where(STUDY.c.study_key.in_(keys))
            ).scalars()
        )
        connection.execute(
            delete(SERIES).where(
                SERIES.c.study_key.in_(keys),
                ~exists().where(INSTANCE.c.series_key == SERIES.c.series_key),
            )
        )
        connection.execute(
            delete(STUDY).where(
                STUDY.c.study_key.in_(keys),
                ~exists().where(SERIES.c.study_key == STUDY.c.study_key),
            )
        )
        connection.execute(
            delete(PATIENT).where(
                PATIENT.c.patient_key.in_(patients),
                ~exists().where(STUDY.c.patient_key == PATIENT.c.patient_key),
            )
        )
        remaining += connection.execute(
            select(STUDY.c.study_key).where(STUDY.c.study_key.in_(keys))
        ).scalars()
    return remaining
