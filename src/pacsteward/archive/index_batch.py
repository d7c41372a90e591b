"""A batch of landed instances into the index, in the caller's one transaction.

Everything is asked and written for the whole batch at once: what is known of its UIDs, its studies
and series, new rows, counters. So the cost of a statement is shared by all instances of the batch,
and a transaction is short, since readers wait for it.

Nothing is remembered between batches: the rows are read in the transaction that changes them, so
two nodes on one PostgreSQL, a deletion and a replay all find what is really there. Writing the same
batch again changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import Connection, bindparam, insert, select, update

from pacsteward.archive import digest
from pacsteward.archive.counters import SeriesKey, add_to_counters, chunks
from pacsteward.archive.digest import Row
from pacsteward.archive.events import ContentConflicted, InstancesStored, StudyArrived
from pacsteward.archive.index_insert import insert_instances
from pacsteward.archive.known import (
    Known,
    is_set_aside,
    known_conflicts,
    known_instances,
    place_of,
)
from pacsteward.archive.landing import Landed
from pacsteward.archive.tables import (
    CONFLICT,
    PATIENT,
    SERIES,
    STUDY,
)
from pacsteward.base.db import insert_new
from pacsteward.base.events import Fact
from pacsteward.dicom.attributes import Level
from pacsteward.dicom.header import Header

_BEGIN: Final = datetime(2026, 1, 1, tzinfo=UTC)

# What a later instance may fill when the first left it empty; never who the patient is.
_IDENTITY: Final = frozenset({"patient_id", "issuer_of_patient_id", "study_instance_uid"})
_PATIENT_FILLABLE: Final = tuple(
    name for name in digest.column_names(Level.PATIENT) if name not in _IDENTITY
)
_STUDY_FILLABLE: Final = (
    *_PATIENT_FILLABLE,
    *(name for name in digest.column_names(Level.STUDY) if name not in _IDENTITY),
)
_STUDY_TAGS: Final = {
    **{name: digest.tag_of(Level.PATIENT, name) for name in _PATIENT_FILLABLE},
    **{
        name: digest.tag_of(Level.STUDY, name)
        for name in digest.column_names(Level.STUDY)
        if name not in _IDENTITY
    },
}


@dataclass(frozen=True, slots=True)
class Item:
    """A landed instance with its header."""

    landed: Landed
    header: Header


@dataclass(slots=True)
class Written:
    """What a batch did, for facts, audit and who waits."""

    stored: list[Landed] = field(default_factory=list)
    conflicts: list[Landed] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)


def write_batch(
    connection: Connection,
    items: Sequence[Item],
    *,
    now: datetime,
    completes_at: datetime | None,
) -> Written:
    """Write instances, with their patients, studies and series.

    Parameters
    ----------
    connection
        A writing transaction.
    completes_at
        When the studies count as complete unless more comes; None leaves that alone (rebuild).

    Raises
    ------
    Raced
        Only where several nodes share a database.
    """
    written = Written()
    fresh = list(_fresh(connection, items, written))
    if fresh:
        studies = _studies(connection, fresh, now, written)
        identities = [_series_identity(item.landed, studies) for item in fresh]
        series = _series(connection, fresh, identities, now)
        _instances(connection, fresh, [series[identity]["series_key"] for identity in identities])
        _count(connection, fresh, identities, studies, series, now)
        _update_studies(connection, studies, completes_at)
        written.stored = [item.landed for item in fresh]
        written.facts += _stored_facts(written.stored)
    for landed in written.conflicts:
        written.facts.append(_write_conflict(connection, landed))
    return written


# --- what is new ---------------------------------------------------------------------------------


def _fresh(connection: Connection, items: Sequence[Item], written: Written) -> Iterator[Item]:
    """Give what is to be stored; the rest is here already, or clashes with what is here.

    The arbiter has decided before the acknowledgement; what is found here is a replay, what
    another node stored meanwhile, or a clash with what was deleted since.
    """
    conflicts: list[Landed] = []
    uids = [item.landed.description.sop_instance_uid for item in items]
    known = known_instances(connection, uids)
    # In their order: what one clashes with may be in the same batch, and landed before it.
    for item in items:
        landed = item.landed
        uid = landed.description.sop_instance_uid
        there = known.get(uid)
        if there is None and landed.description.is_conflict:
            if is_set_aside(connection, uid):
                conflicts.append(landed)
                continue
            item = _without_conflict(item)
        if there is None:
            known[uid] = Known(
                landed.size_bytes,
                landed.checksum,
                landed.description.transfer_syntax_uid,
                landed.location,
            )
            yield item
        elif there.location != landed.location and (
            landed.description.is_conflict
            or (there.size_bytes, there.checksum) != (landed.size_bytes, landed.checksum)
        ):
            conflicts.append(landed)
    written.conflicts += _not_written(connection, conflicts)


def _without_conflict(item: Item) -> Item:
    """Return a content whose other one was deleted: it is the only one now, and so the instance."""
    description = replace(item.landed.description, is_conflict=False)
    return replace(item, landed=replace(item.landed, description=description))


def _not_written(connection: Connection, conflicts: Sequence[Landed]) -> list[Landed]:
    """Leave out what is here: a batch whose commit was not confirmed is written again."""
    if not conflicts:
        return []
    known = known_conflicts(connection, [one.description.sop_instance_uid for one in conflicts])
    return [
        landed
        for landed in conflicts
        if all(
            there.location != landed.location
            for there in known.get(landed.description.sop_instance_uid, ())
        )
    ]


# --- patients, studies, series -------------------------------------------------------------------

_STUDIES: Final = (
    select(STUDY)
    .where(STUDY.c.study_instance_uid.in_(bindparam("uids", expanding=True)))
    .order_by(STUDY.c.study_instance_uid)
    .with_for_update()
)
_SERIES: Final = select(
    SERIES.c.series_key,
    SERIES.c.study_key,
    SERIES.c.series_instance_uid,
    SERIES.c.modality,
    SERIES.c.number_of_series_related_instances,
).where(SERIES.c.study_key.in_(bindparam("keys", expanding=True)))
_PATIENTS: Final = select(PATIENT).where(PATIENT.c.patient_id.in_(bindparam("ids", expanding=True)))


def _studies(
    connection: Connection, fresh: Sequence[Item], now: datetime, written: Written
) -> dict[str, Row]:
    """Return the rows of the batch's studies by UID, new ones included."""
    first_of: dict[str, Item] = {}
    for item in fresh:
        first_of.setdefault(item.landed.description.study_instance_uid, item)
    uids = sorted(first_of)
    rows = _study_rows(connection, uids)
    missing = [uid for uid in uids if uid not in rows]
    if missing:
        patients = _patients(connection, [first_of[uid] for uid in missing], now)
        new = []
        for uid in missing:
            landed, header = first_of[uid].landed, first_of[uid].header
            row = digest.study_row(landed, header)
            row["patient_key"] = patients[_patient_identity(digest.patient_row(landed, header))]
            row["created_at"] = row["updated_at"] = now
            row["version"] = first_version(now)
            new.append(row)
            source_name = landed.description.origin.actor
            written.facts.append(StudyArrived(study_instance_uid=uid, source_name=source_name))
        connection.execute(insert_new(connection, STUDY, "study_instance_uid"), new)
        rows |= _study_rows(connection, missing)
    for item in fresh:
        _fill(rows[item.landed.description.study_instance_uid], item)
    return rows


def first_version(now: datetime) -> int:
    """Return the version of a new row: seconds since 2026.

    Not 1: a study that was deleted and is stored anew must not bear a version, and so an ETag,
    that somebody still has in a cache.
    """
    return max(1, int((now - _BEGIN).total_seconds()))


def _study_rows(connection: Connection, uids: Sequence[str]) -> dict[str, Row]:
    rows: dict[str, Row] = {}
    for chunk in chunks(uids):
        for found in connection.execute(_STUDIES, {"uids": chunk}).mappings():
            row = dict(found)
            row["filled"] = {}
            row["empty"] = [name for name in _STUDY_FILLABLE if not row[name]]
            row["wanted"] = {_STUDY_TAGS[name] for name in row["empty"]}
            rows[row["study_instance_uid"]] = row
    return rows


def _fill(study: Row, item: Item) -> None:
    """Take over what the study's first instances left empty.

    What is there stays: instances of one study may differ in an attribute, and a study must not
    change its face with each of them.
    """
    values = item.header.values
    present = [tag for tag in study["wanted"].intersection(values) if values[tag]]
    if not present:
        return
    # Looked at once: what comes to nothing now does so for the whole series.
    study["wanted"].difference_update(present)
    offered = digest.study_row(item.landed, item.header)
    filled = {name: offered[name] for name in study["empty"] if offered.get(name)}
    if filled:
        study["filled"] |= filled
        study["empty"] = [name for name in study["empty"] if name not in filled]


def _patient_identity(row: Row) -> tuple[str, str, str]:
    return row["patient_id"], row["issuer_of_patient_id"], row["only_study_instance_uid"]


def _patients(
    connection: Connection, items: Iterable[Item], now: datetime
) -> dict[tuple[str, str, str], int]:
    """Return the keys of the patients by identity, new ones included."""
    wanted: dict[tuple[str, str, str], Row] = {}
    for item in items:
        row = digest.patient_row(item.landed, item.header)
        wanted.setdefault(_patient_identity(row), row)
    rows = _patient_rows(connection, wanted)
    missing = [wanted[identity] for identity in wanted if identity not in rows]
    if missing:
        for row in missing:
            row["created_at"] = now
        statement = insert_new(
            connection, PATIENT, "patient_id", "issuer_of_patient_id", "only_study_instance_uid"
        )
        connection.execute(statement, missing)
        rows |= _patient_rows(connection, wanted)
    for identity, row in rows.items():
        filled = {
            name: wanted[identity][name]
            for name in _PATIENT_FILLABLE
            if not row[name] and wanted[identity][name]
        }
        if filled:
            connection.execute(
                update(PATIENT).where(PATIENT.c.patient_key == row["patient_key"]).values(**filled)
            )
    return {identity: row["patient_key"] for identity, row in rows.items()}


def _patient_rows(
    connection: Connection, wanted: dict[tuple[str, str, str], Row]
) -> dict[tuple[str, str, str], Row]:
    rows = {}
    # "" is what all patients without an ID have; they are one for each study, so never looked
    # up by it alone.
    for chunk in chunks(sorted({identity[0] for identity in wanted if identity[0]})):
        for found in connection.execute(_PATIENTS, {"ids": chunk}).mappings():
            rows[_patient_identity(dict(found))] = dict(found)
    for chunk in chunks(sorted({identity[2] for identity in wanted if identity[2]})):
        nobody = select(PATIENT).where(
            PATIENT.c.patient_id == "", PATIENT.c.only_study_instance_uid.in_(chunk)
        )
        for found in connection.execute(nobody).mappings():
            rows[_patient_identity(dict(found))] = dict(found)
    return {identity: row for identity, row in rows.items() if identity in wanted}


def _series(
    connection: Connection, fresh: Sequence[Item], identities: Sequence[SeriesKey], now: datetime
) -> dict[SeriesKey, Row]:
    """Return the rows of the batch's series by study and UID, new ones included."""
    first_of: dict[SeriesKey, Item] = {}
    for identity, item in zip(identities, fresh, strict=True):
        first_of.setdefault(identity, item)
    keys = sorted({key for key, _ in first_of})
    rows = _series_rows(connection, keys)
    new = []
    for identity, item in first_of.items():
        if identity in rows:
            continue
        row = digest.series_row(item.landed, item.header)
        row["study_key"] = identity[0]
        row["created_at"] = row["updated_at"] = now
        row["version"] = first_version(now)
        new.append(row)
    if new:
        statement = insert_new(connection, SERIES, "series_instance_uid", "study_key")
        connection.execute(statement, new)
        rows = _series_rows(connection, keys)
    return rows


def _series_identity(landed: Landed, studies: dict[str, Row]) -> SeriesKey:
    description = landed.description
    return studies[description.study_instance_uid]["study_key"], description.series_instance_uid


def _series_rows(connection: Connection, study_keys: Sequence[int]) -> dict[SeriesKey, Row]:
    return {
        (found["study_key"], found["series_instance_uid"]): dict(found)
        for chunk in chunks(study_keys)
        for found in connection.execute(_SERIES, {"keys": chunk}).mappings()
    }


# --- instances and counters ----------------------------------------------------------------------


def _instances(connection: Connection, fresh: Sequence[Item], series_keys: Sequence[int]) -> None:
    rows = []
    for item, series_key in zip(fresh, series_keys, strict=True):
        row = digest.instance_row(item.landed, item.header)
        row["series_key"] = series_key
        rows.append(row)
    insert_instances(connection, rows, [item.landed for item in fresh])


def _count(
    connection: Connection,
    fresh: Sequence[Item],
    identities: Sequence[SeriesKey],
    studies: dict[str, Row],
    series: dict[SeriesKey, Row],
    now: datetime,
) -> None:
    added = [
        (
            item.landed.description.study_instance_uid,
            identity,
            item.landed.description.sop_class_uid,
            item.landed.size_bytes,
        )
        for item, identity in zip(fresh, identities, strict=True)
    ]
    add_to_counters(connection, added, studies, series, now)


def _update_studies(
    connection: Connection, studies: dict[str, Row], completes_at: datetime | None
) -> None:
    for study in studies.values():
        changed: Row = dict(study["filled"])
        if completes_at is not None:
            changed |= {"completes_at": completes_at, "completed_at": None}
        if changed:
            connection.execute(
                update(STUDY).where(STUDY.c.study_key == study["study_key"]).values(**changed)
            )


# --- conflicts and facts -------------------------------------------------------------------------


def _write_conflict(connection: Connection, landed: Landed) -> Fact:
    description = landed.description
    inserted = connection.execute(
        insert(CONFLICT).values(
            sop_instance_uid=description.sop_instance_uid,
            study_instance_uid=description.study_instance_uid,
            series_instance_uid=description.series_instance_uid,
            sop_class_uid=description.sop_class_uid,
            transfer_syntax_uid=description.transfer_syntax_uid,
            checksum=landed.checksum,
            source_name=description.origin.actor,
            received_at=description.received_at,
            **place_of(landed.location),
        )
    )
    key = inserted.inserted_primary_key
    assert key is not None
    return ContentConflicted(
        conflict_key=int(key[0]),
        study_instance_uid=description.study_instance_uid,
        sop_instance_uid=description.sop_instance_uid,
        source_name=description.origin.actor,
    )


def _stored_facts(stored: Sequence[Landed]) -> Iterator[Fact]:
    grouped: dict[tuple[str, str, str, str], list[str]] = {}
    for landed in stored:
        description = landed.description
        group = (
            description.study_instance_uid,
            description.series_instance_uid,
            description.origin.actor,
            description.origin.association_id,
        )
        grouped.setdefault(group, []).append(description.sop_instance_uid)
    for (study, series, source_name, association_id), uids in grouped.items():
        yield InstancesStored(
            study_instance_uid=study,
            series_instance_uid=series,
            sop_instance_uids=tuple(uids),
            source_name=source_name,
            association_id=association_id,
        )
