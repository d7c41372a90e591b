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
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
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
from pacsteward.archive.indexer import Audit, Indexer, NotWhereItWas
from pacsteward.archive.known import (
    landing_position,
    ledger_position,
    move_landing_position,
    move_ledger_position,
)
from pacsteward.archive.landing import Landed, Landing
from pacsteward.archive.ledger import Ledger, LedgerEntry, Tell, landed_before
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
from pacsteward.base.errors import Conflict, Unavailable
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
    Unavailable
        The database is away, or has lost its last transactions; to be run again.
    """
    with disk.speaking("The index was not made anew."), ExitStack() as resources:
        resources.callback(FolderLock(data_folder).release)
        node = open_folder(data_folder, clock)
        before = _known_before(data_folder, database, node)
        entries = _decisions(data_folder, before)
        landing = Landing(data_folder / "landing", segment_bytes=settings.segment_bytes)
        landing.open(max(before.sequence, landed_before(entries)))
        resources.callback(landing.close)
        watermark = Watermark(data_folder / "run")
        resources.callback(watermark.close)
        _settle_objects(data_folder, landing)
        mark_half_made_index(data_folder, before)
        _empty(database, node)
        indexer = partial(Indexer, data_folder, database, clock, node=node, watermark=watermark)
        quiet_s = settings.study_quiet_s
        new = _NewIndex(
            database,
            clock,
            node,
            before,
            known=indexer(study_quiet_s=None, facts=None, audit=None),
            news=indexer(study_quiet_s=quiet_s, facts=facts, audit=audit),
            tell=tell,
            progress=progress,
            landed=landing.safe_sequence,
        )
        replay(landing.replay(0), entries, index=new.index, decide=new.decide)
        _keep_incomplete(database, before, clock.now() + timedelta(seconds=quiet_s))
        # A sequence is never used twice, even if the log has lost its end.
        sequence = max(before.sequence, landing.safe_sequence)
        instances = _finish(new, sequence)
        unmark_half_made_index(data_folder)
        return instances


def _known_before(data_folder: Path, database: Database, node: str) -> BeforeRebuild:
    """Return what the old index alone knows, also that of an interrupted attempt."""
    with database.read() as connection:
        _refuse_other_nodes(connection, node)
        found = BeforeRebuild(
            landing_position(connection, node),
            ledger_position(connection, node),
            _incomplete_studies(connection),
        )
    return known_before(data_folder, found)


def _decisions(data_folder: Path, before: BeforeRebuild) -> list[LedgerEntry]:
    ledger = Ledger(data_folder / "ledger")
    try:
        return ledger.open(before.ledger_sequence)
    finally:
        ledger.close()


def _settle_objects(data_folder: Path, landing: Landing) -> None:
    """Keep those big objects that were on their way which the log names; remove the others."""
    objects = LocalObjects(data_folder)
    objects.prepare()
    objects.settle(
        {one.description.object_container for one in landing.replay(0, is_checked=False)}
    )


@dataclass(slots=True)
class _NewIndex:
    """Writes what landed and what was decided to the emptied index.

    A server that crashes between two transactions is connected to anew without a word, and has
    forgotten the last of them. So each looks whether the index is where the one before left it.

    Parameters
    ----------
    known
        Takes what the old index had, of which everybody was told.
    news
        Takes what it had not come to.
    tell
        Is told of decisions that it had not come to.
    landed
        Sequence of the last record of the log.
    """

    database: Database
    clock: Clock
    node: str
    before: BeforeRebuild
    known: Indexer
    news: Indexer
    tell: Tell
    progress: Progress | None
    landed: int
    position: int = 0
    """Sequence up to which the index has come."""

    def index(self, batch: Sequence[Landed]) -> None:
        """Index a batch."""
        self._write(self.known, [one for one in batch if one.sequence <= self.before.sequence])
        self._write(self.news, [one for one in batch if one.sequence > self.before.sequence])
        if self.progress is not None:
            self.progress(batch[-1].sequence, self.landed)

    def _write(self, indexer: Indexer, batch: Sequence[Landed]) -> None:
        if not batch:
            return
        indexer.begin_at(self.position)
        try:
            indexer.index(batch)
        except NotWhereItWas as error:
            raise _forgotten() from error
        self.position = batch[-1].sequence

    def check(self, connection: Connection) -> None:
        """Return if the index has all that was written.

        Raises
        ------
        Unavailable
            The database has forgotten some of it.
        """
        if landing_position(connection, self.node) != self.position:
            raise _forgotten()

    def decide(self, entry: LedgerEntry) -> None:
        """Carry out a decision."""
        with self.database.write() as connection:
            self.check(connection)
            if entry.sequence > self.before.ledger_sequence:
                self.tell(connection, entry)
            apply_entry(connection, entry, self.clock.now())
            move_ledger_position(connection, self.node, entry.sequence)


def _forgotten() -> Unavailable:
    return Unavailable(
        "The index was not made anew.",
        why="The database has lost its last transactions.",
        remedy="Run `pacsteward archive rebuild` again.",
    )


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


def _finish(new: _NewIndex, sequence: int) -> int:
    now = new.clock.now()
    with new.database.write() as connection:
        new.check(connection)
        # What was complete stays so: nothing is routed again because the index is new.
        connection.execute(
            update(STUDY).where(STUDY.c.completes_at.is_(None)).values(completed_at=now)
        )
        move_landing_position(connection, new.node, sequence)
        return int(connection.execute(select(func.count()).select_from(INSTANCE)).scalar_one())
