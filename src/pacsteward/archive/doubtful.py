"""What needs a human: other contents under a UID, records without an index, patients in doubt.

All are kept and can be had: a conflicting content by its key, a record that was set aside by the
SOP Instance UID under which it was acknowledged, the study of such a patient as any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row, func, select, text

from pacsteward.archive.model import Instance, Location
from pacsteward.archive.tables import CONFLICT, INSTANCE, SET_ASIDE, STUDY
from pacsteward.base.db import Database
from pacsteward.base.errors import NotFound

UNKNOWN_CHECKSUM: Final = -1
"""Of bytes for which the index holds none; the landing log does, and `verify` compares it."""

_OPEN: Final = CONFLICT.c.settled_as == ""
# As plain text: an index of these few rows is only used where the condition is its own.
_IN_DOUBT: Final = text("study.identity_doubt <> ''")


@dataclass(frozen=True, slots=True)
class Waiting:
    """How much of each kind needs a human."""

    conflicts: int
    set_aside: int
    doubtful_patients: int


@dataclass(frozen=True, slots=True)
class DoubtfulStudy:
    """A study without a patient ID that can be trusted.

    Parameters
    ----------
    identity_doubt
        ``"missing"`` or ``"illegal"``.
    """

    study_instance_uid: str
    identity_doubt: str
    accession_number: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ConflictingContent:
    """Other content under a UID that is taken.

    Parameters
    ----------
    settled_as
        Empty while nobody has decided.
    """

    conflict_key: int
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    source_name: str
    settled_as: str
    received_at: datetime
    size_bytes: int


@dataclass(frozen=True, slots=True)
class SetAside:
    """An acknowledged record that the indexer could not digest."""

    set_aside_key: int
    sop_instance_uid: str
    transfer_syntax_uid: str
    why: str
    received_at: datetime
    size_bytes: int


def count(database: Database) -> Waiting:
    """Count what needs a human."""
    with database.read() as connection:
        counts = connection.execute(
            select(
                select(func.count()).where(_OPEN).scalar_subquery(),
                select(func.count()).select_from(SET_ASIDE).scalar_subquery(),
                select(func.count()).select_from(STUDY).where(_IN_DOUBT).scalar_subquery(),
            )
        ).one()
    return Waiting(*map(int, counts))


def conflicts(database: Database, limit: int | None) -> list[ConflictingContent]:
    """List the conflicts that nobody has settled, the latest first."""
    query = select(CONFLICT).where(_OPEN).order_by(CONFLICT.c.conflict_key.desc()).limit(limit)
    with database.read() as connection:
        return [_conflict(row) for row in connection.execute(query)]


def conflict(database: Database, conflict_key: int) -> ConflictingContent:
    """Return what is known of one conflict, of a settled one too.

    Raises
    ------
    NotFound
        There is no such conflict.
    """
    return _conflict(_row_of_conflict(database, conflict_key))


def _conflict(row: Row[Any]) -> ConflictingContent:
    return ConflictingContent(
        conflict_key=row.conflict_key,
        sop_instance_uid=row.sop_instance_uid,
        study_instance_uid=row.study_instance_uid,
        series_instance_uid=row.series_instance_uid,
        sop_class_uid=row.sop_class_uid,
        transfer_syntax_uid=row.transfer_syntax_uid,
        source_name=row.source_name,
        settled_as=row.settled_as,
        received_at=row.received_at,
        size_bytes=row.length,
    )


def _row_of_conflict(database: Database, conflict_key: int) -> Row[Any]:
    query = select(CONFLICT).where(CONFLICT.c.conflict_key == conflict_key)
    with database.read() as connection:
        row = connection.execute(query).first()
    if row is None:
        raise NotFound(
            f"There is no conflict {conflict_key}.",
            why="It never was, or one of its contents was deleted.",
            remedy="Look for it in the list of what needs a human.",
        )
    return row


def records_set_aside(database: Database, limit: int | None) -> list[SetAside]:
    """List the records that were set aside, the latest first."""
    query = select(SET_ASIDE).order_by(SET_ASIDE.c.set_aside_key.desc()).limit(limit)
    with database.read() as connection:
        return [
            SetAside(
                set_aside_key=row.set_aside_key,
                sop_instance_uid=row.sop_instance_uid,
                transfer_syntax_uid=row.transfer_syntax_uid,
                why=row.why,
                received_at=row.received_at,
                size_bytes=row.length,
            )
            for row in connection.execute(query)
        ]


def studies_of_doubtful_patients(database: Database, limit: int | None) -> list[DoubtfulStudy]:
    """List studies whose patient cannot be told for certain, the latest first."""
    query = (
        select(
            STUDY.c.study_instance_uid,
            STUDY.c.identity_doubt,
            STUDY.c.accession_number,
            STUDY.c.created_at,
        )
        .where(_IN_DOUBT)
        .order_by(STUDY.c.study_key.desc())
        .limit(limit)
    )
    with database.read() as connection:
        return [DoubtfulStudy(*row) for row in connection.execute(query)]


def conflicting_instance(database: Database, conflict_key: int) -> Instance:
    """Return the second content of a conflict, to be opened like any instance.

    Raises
    ------
    NotFound
        There is no such conflict.
    """
    row = _row_of_conflict(database, conflict_key)
    return _instance(
        row,
        sop_class_uid=row.sop_class_uid,
        study_instance_uid=row.study_instance_uid,
        series_instance_uid=row.series_instance_uid,
        checksum=row.checksum,
    )


def source_of(database: Database, instance: Instance) -> str:
    """Return who sent an instance; empty where it is not known."""
    query = select(INSTANCE.c.source_name).where(
        INSTANCE.c.instance_key == instance.instance_key,
        INSTANCE.c.sop_instance_uid == instance.sop_instance_uid,
    )
    with database.read() as connection:
        return connection.execute(query).scalar() or ""


def instance_set_aside(database: Database, sop_instance_uid: str) -> Instance | None:
    """Return a record that was set aside, to be opened like any instance."""
    query = (
        select(SET_ASIDE)
        .where(SET_ASIDE.c.sop_instance_uid == sop_instance_uid)
        .order_by(SET_ASIDE.c.set_aside_key)
    )
    with database.read() as connection:
        row = connection.execute(query).first()
    return None if row is None else _unindexed(row)


def instance_of_record(database: Database, set_aside_key: int) -> Instance:
    """Return a record that was set aside, whatever else is known under its UID.

    Raises
    ------
    NotFound
        There is no such record.
    """
    query = select(SET_ASIDE).where(SET_ASIDE.c.set_aside_key == set_aside_key)
    with database.read() as connection:
        row = connection.execute(query).first()
    if row is None:
        raise NotFound(
            f"Record {set_aside_key} was not found.",
            why="It was never set aside, or it was indexed or deleted since.",
            remedy="`pacsteward archive set-aside` lists those there are.",
        )
    return _unindexed(row)


def _unindexed(row: Row[Any]) -> Instance:
    return _instance(
        row,
        sop_class_uid="",
        study_instance_uid="",
        series_instance_uid="",
        checksum=UNKNOWN_CHECKSUM,
    )


def _instance(
    row: Row[Any],
    *,
    sop_class_uid: str,
    study_instance_uid: str,
    series_instance_uid: str,
    checksum: int,
) -> Instance:
    """Make an instance of what is known: it is in no series, so it has none of its attributes."""
    return Instance(
        instance_key=0,
        sop_instance_uid=row.sop_instance_uid,
        sop_class_uid=sop_class_uid,
        series_instance_uid=series_instance_uid,
        study_instance_uid=study_instance_uid,
        transfer_syntax_uid=row.transfer_syntax_uid,
        instance_number="",
        number_of_frames="",
        rows="",
        columns="",
        modality="",
        patient_id="",
        issuer_of_patient_id="",
        has_pixel_data=False,
        size_bytes=row.length,
        checksum=checksum,
        location=Location(
            row.container_kind, row.container, row.generation, row.offset, row.length
        ),
        file_meta=b"",
        received_at=row.received_at,
        series_version=0,
    )
