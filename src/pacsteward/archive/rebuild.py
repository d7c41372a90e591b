"""The index anew, from the stored bytes and the ledger alone.

What the index says of patients, studies, series, instances, conflicts and places is thrown away and
read again: landing log, big objects, and the ledger's decisions in the order in which they were
made. So a rejection is never undone and what was deleted does not come back. People, peers, audit
and facts are not touched, and nothing is announced again. What the old index had not come to is
announced and recorded for the first time; a study that waited to be announced as
complete still does.

While it runs a mark lies in the data folder, with what the old index alone knew; if it is
interrupted, the archive does not open before it was run to its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, delete, func, select, update

from pacsteward.archive import disk
from pacsteward.archive.apply import apply_entry
from pacsteward.archive.counters import chunks
from pacsteward.archive.folder import (
    BeforeRebuild,
    FolderLock,
    known_before,
    mark_half_made_index,
    open_folder,
    unmark_half_made_index,
)
from pacsteward.archive.indexer import Audit, Indexer
from pacsteward.archive.known import (
    landing_position,
    ledger_position,
    move_landing_position,
    move_ledger_position,
)
from pacsteward.archive.landing import Landed, Landing
from pacsteward.archive.ledger import LedgerEntry, Tell, landed_before, read_ledger
from pacsteward.archive.replay import replay
from pacsteward.archive.settings import ArchiveSettings
from pacsteward.archive.storage.local import LocalObjects
from pacsteward.archive.tables import (
    CONFLICT,
    INSTANCE,
    LANDING_POSITION,
    LEDGER_POSITION,
    LOCATION,
    PATIENT,
    SERIES,
    SET_ASIDE,
    STUDY,
)
from pacsteward.archive.verify import Progress
from pacsteward.archive.watermark import Watermark
from pacsteward.base.clock import Clock
from pacsteward.base.db import Database
from pacsteward.base.errors import Conflict
from pacsteward.base.events import FactLog

# Children before parents.
_EMPTIED: Final = (LOCATION, INSTANCE, SERIES, STUDY, PATIENT, CONFLICT, SET_ASIDE)


def rebuild(
    data_folder: Path,
    database: Database,
    clock: Clock,
    settings: ArchiveSettings,
    progress: Progress | None = None,
    *,
    facts: FactLog | None = None,
    audit: Audit | None = None,
    tell: Tell = lambda _connection, _entry: None,
) -> int:
    """Make the index anew; return how many instances it has.

    Parameters
    ----------
    facts, audit, tell
        Take what the old index had not come to: what landed, and was decided, right before a
        crash is announced and recorded here for the first time.

    Raises
    ------
    Conflict
        The archive is running, or other nodes share the index.
    Broken
        The ledger is damaged: without it what was deleted would come back.
    """
    with disk.speaking("The index was not made anew."):
        lock = FolderLock(data_folder)
        try:
            said = _Said(facts, audit, tell)
            return _rebuild(data_folder, database, clock, settings, progress, said)
        finally:
            lock.release()


@dataclass(frozen=True, slots=True)
class _Said:
    """Where goes what nobody was told of yet."""

    facts: FactLog | None
    audit: Audit | None
    tell: Tell


def _rebuild(
    data_folder: Path,
    database: Database,
    clock: Clock,
    settings: ArchiveSettings,
    progress: Progress | None,
    said: _Said,
) -> int:
    node = open_folder(data_folder, clock)
    entries = read_ledger(data_folder / "ledger")
    with database.read() as connection:
        _refuse_other_nodes(connection, node)
        before = BeforeRebuild(
            landing_position(connection, node),
            ledger_position(connection, node),
            _incomplete_studies(connection),
        )
    before = known_before(data_folder, before)
    landing = Landing(data_folder / "landing", segment_bytes=settings.segment_bytes)
    landing.open(max(before.sequence, landed_before(entries)))
    objects = LocalObjects(data_folder)
    objects.prepare()
    watermark = Watermark(data_folder / "run")
    try:
        objects.settle(
            {one.description.object_container for one in landing.replay(0, is_checked=False)}
        )
        mark_half_made_index(data_folder, before)
        _empty(database, node)

        def indexer(*, is_news: bool) -> Indexer:
            return Indexer(
                data_folder,
                database,
                clock,
                node=node,
                study_quiet_s=settings.study_quiet_s if is_news else None,
                facts=said.facts if is_news else None,
                audit=said.audit if is_news else None,
                watermark=watermark,
            )

        old, new = indexer(is_news=False), indexer(is_news=True)

        def index(batch: Sequence[Landed]) -> None:
            old.index([one for one in batch if one.sequence <= before.sequence])
            new.index([one for one in batch if one.sequence > before.sequence])
            if progress is not None:
                progress(batch[-1].sequence, landing.safe_sequence)

        def decide(entry: LedgerEntry) -> None:
            with database.write() as connection:
                if entry.sequence > before.ledger_sequence:
                    said.tell(connection, entry)
                apply_entry(connection, entry, clock.now())
                move_ledger_position(connection, node, entry.sequence)

        replay(landing.replay(0), entries, index=index, decide=decide)
        # A sequence is never used twice, even if the log has lost its end.
        sequence = max(before.sequence, landing.safe_sequence)
        _keep_incomplete(database, before, clock.now() + timedelta(seconds=settings.study_quiet_s))
        instances = _finish(database, clock, node, sequence)
        unmark_half_made_index(data_folder)
        return instances
    finally:
        landing.close()
        watermark.close()


def _empty(database: Database, node: str) -> None:
    with database.write() as connection:
        for table in _EMPTIED:
            connection.execute(delete(table))
        for position in (LANDING_POSITION, LEDGER_POSITION):
            connection.execute(delete(position).where(position.c.node == node))


def _refuse_other_nodes(connection: Connection, node: str) -> None:
    others = connection.execute(
        select(LANDING_POSITION.c.node).where(LANDING_POSITION.c.node != node)
    ).scalars()
    if found := sorted(others):
        raise Conflict(
            "The index was not made anew.",
            why=f"Other nodes have their instances in it: {', '.join(found)}.",
            remedy="Make an index of its own for this folder, or restore the database.",
        )


def _incomplete_studies(connection: Connection) -> tuple[str, ...]:
    return tuple(
        connection.execute(
            select(STUDY.c.study_instance_uid).where(STUDY.c.completes_at.is_not(None))
        ).scalars()
    )


def _keep_incomplete(database: Database, before: BeforeRebuild, completes_at: datetime) -> None:
    """Have those studies announced as complete that nobody has heard of yet."""
    with database.write() as connection:
        for uids in chunks(before.incomplete_studies):
            connection.execute(
                update(STUDY)
                .where(STUDY.c.study_instance_uid.in_(uids))
                .values(completes_at=completes_at)
            )


def _finish(database: Database, clock: Clock, node: str, sequence: int) -> int:
    now = clock.now()
    with database.write() as connection:
        # What was complete stays so: nothing is routed again because the index is new.
        connection.execute(
            update(STUDY).where(STUDY.c.completes_at.is_(None)).values(completed_at=now)
        )
        move_landing_position(connection, node, sequence)
        return int(connection.execute(select(func.count()).select_from(INSTANCE)).scalar_one())
