"""The archive as it is found, compared with the picture of what should be there.

Nothing is taken on trust: every instance is read to its last byte, the audit book is read entry by
entry and its chain walked, the log of facts is read from its beginning.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import select

from pacsteward.archive import Archive, Instance, Selection
from pacsteward.archive.tables import (
    CONFLICT,
    INSTANCE,
    LOCATION,
    PATIENT,
    SERIES,
    SET_ASIDE,
    STUDY,
)
from pacsteward.base.db import Database
from pacsteward.base.events.tables import FACT
from pacsteward.base.jobs.tables import JOB
from pacsteward.dicom.attributes import Level
from pacsteward.dicom.matching import Query
from pacsteward.security.tables import AUDIT_ENTRY
from tests.simulation.model import Kept, Picture, digest_of

_STUDY_UID: Final = 0x0020000D
_INSTANCES: Final = 0x00201208
_DEEDS: Final = {
    "were received under": "received beside",
    "were received": "received",
    "were rejected": "rejected",
    "were restored": "restored",
    "were deleted": "deleted",
}
_ENDED: Final = ("done", "cancelled")
"""Nobody cancels a job here but the queue, in favour of one that does the same."""

_MOVING: Final = frozenset(
    {
        "patient_key",
        "study_key",
        "series_key",
        "instance_key",
        "conflict_key",
        "set_aside_key",
        "version",
        "created_at",
        "updated_at",
        "completes_at",
        "completed_at",
    }
)


@dataclass(slots=True)
class Found:
    """What was found; each field compares with what a picture says."""

    kept: dict[str, tuple[str, ...]] = field(default_factory=dict)
    listed: dict[str, int] = field(default_factory=dict)
    audited: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    announced: Counter[tuple[str, str]] = field(default_factory=Counter)
    set_aside: tuple[str, ...] = ()

    def fits(self, picture: Picture) -> bool:
        """Whether this is what should be there."""
        return self == expected(picture)

    def differences(self, picture: Picture) -> list[str]:
        """Say what is not as it should be."""
        wanted = expected(picture)
        words = []
        for name in ("kept", "listed", "audited", "announced"):
            is_there, should = getattr(self, name), getattr(wanted, name)
            for key in sorted(set(is_there) | set(should), key=str):
                if is_there.get(key) != should.get(key):
                    words.append(
                        f"{name}: {key} is {is_there.get(key)}, should be {should.get(key)}"
                    )
        words += [f"set aside: {uid}" for uid in self.set_aside]
        return words


def expected(picture: Picture) -> Found:
    """Return what should be found."""
    shown = Counter(one.content.study for one in picture.kept.values() if not one.rejected_for)
    return Found(
        {uid: _line(one) for uid, one in picture.kept.items()},
        dict(shown),
        Counter({key: count for key, count in picture.audited.items() if count}),
        Counter({key: count for key, count in picture.announced.items() if count}),
    )


def look(archive: Archive, database: Database) -> Found:
    """Read everything that is in the archive, byte for byte."""
    found = Found()
    others: dict[str, list[str]] = {}
    for conflict in archive.conflicts():
        content = _read(archive, archive.conflicting_instance(conflict.conflict_key))
        others.setdefault(conflict.sop_instance_uid, []).append(content)
    for instance in archive.instances(Selection(), with_rejected=True):
        uid = instance.sop_instance_uid
        found.kept[uid] = (
            instance.study_instance_uid,
            instance.series_instance_uid,
            instance.rejected_for,
            _read(archive, instance),
            *sorted(others.pop(uid, ())),
        )
    for uid, contents in others.items():
        found.kept[uid] = ("nothing", *contents)
    query = Query(Level.STUDY, returns=(_STUDY_UID, _INSTANCES))
    found.listed = {
        match.values[_STUDY_UID]: int(match.values[_INSTANCES]) for match in archive.find(query)
    }
    found.set_aside = tuple(one.sop_instance_uid for one in archive.set_aside())
    found.audited = _audited(database)
    found.announced = _announced(database)
    return found


def facts(database: Database, name: str) -> list[dict[str, Any]]:
    """Return what facts of a name say, in the order of the log."""
    with database.read() as connection:
        rows = connection.execute(
            select(FACT.c.body)
            .where(FACT.c.name == name)
            .order_by(FACT.c.transaction_number, FACT.c.position)
        ).scalars()
        return [json.loads(body) for body in rows]


def unfinished(database: Database) -> list[str]:
    """Return what never ended well: jobs, and studies that are not complete."""
    with database.read() as connection:
        jobs = connection.execute(
            select(JOB.c.kind, JOB.c.key, JOB.c.state).where(JOB.c.state.not_in(_ENDED))
        ).all()
        studies = connection.execute(
            select(STUDY.c.study_instance_uid).where(STUDY.c.completes_at.is_not(None))
        ).scalars()
        return [f"job {kind} {key} is {state}" for kind, key, state in jobs] + [
            f"study {uid} is not complete" for uid in studies
        ]


def index(database: Database) -> dict[str, list[Any]]:
    """Return all that the index says, without keys and moments."""
    said = {}
    with database.read() as connection:
        for table in (PATIENT, STUDY, SERIES, INSTANCE, LOCATION, CONFLICT, SET_ASIDE):
            rows = connection.execute(select(table)).mappings()
            said[table.name] = sorted(
                ({name: row[name] for name in row if name not in _MOVING} for row in rows), key=repr
            )
    return said


def _line(kept: Kept) -> tuple[str, ...]:
    return (
        kept.content.study,
        kept.content.series,
        kept.rejected_for,
        kept.content.digest,
        *sorted(other.digest for other in kept.others),
    )


def _read(archive: Archive, instance: Instance) -> str:
    with archive.open(instance) as stored:
        return digest_of(stored.data_set())


def _audited(database: Database) -> Counter[tuple[str, str, str]]:
    told: Counter[tuple[str, str, str]] = Counter()
    with database.read() as connection:
        rows = connection.execute(
            select(AUDIT_ENTRY.c.actor, AUDIT_ENTRY.c.what, AUDIT_ENTRY.c.objects)
        ).all()
    for actor, what, objects in rows:
        deed = next((deed for words, deed in _DEEDS.items() if words in what), "")
        if deed:
            for thing in json.loads(objects):
                told[actor, deed, thing["object_id"]] += thing["number_of_instances"]
    return told


def _announced(database: Database) -> Counter[tuple[str, str]]:
    told: Counter[tuple[str, str]] = Counter()
    with database.read() as connection:
        rows = connection.execute(select(FACT.c.name, FACT.c.body)).all()
    for name, body in rows:
        if name != "study_completed":
            told.update((name, uid) for uid in subjects(name, json.loads(body)))
    return told


def subjects(name: str, body: dict[str, Any]) -> Iterable[str]:
    """Return the UIDs that a fact is about."""
    if name in ("study_arrived", "study_completed"):
        return (body["study_instance_uid"],)
    if name in ("content_conflicted", "record_set_aside"):
        return (body["sop_instance_uid"],)
    return tuple(body["sop_instance_uids"])
