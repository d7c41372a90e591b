"""The vault: images go in, are found, read, hidden, removed and checked. The front door.

An `Archive` is born in one of two ways. In the *keeper's* process it owns the landing log; there is
one of these for each data folder. Everywhere else (doors, web, jobs, commands) it is a *reader*: it
reads index and bytes by itself and hands what arrives, and what changes anything, to the keeper. A
command that finds no keeper becomes one for as long as it needs.

Whatever is asked, the answer holds everything that had been acknowledged when it was asked
(`watermark.py`). What is not `async` blocks, so call it from threads; but `receive`, `begin_chunk`,
`prompt` and `find_at_once` wait for nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection

from pacsteward.archive import doubtful, remove
from pacsteward.archive.arena import SharedChunk
from pacsteward.archive.arriving import Arrivals
from pacsteward.archive.bulk import BulkData, locate
from pacsteward.archive.client import KeeperClient
from pacsteward.archive.completeness import CompletenessWatch
from pacsteward.archive.conditions import unsupported
from pacsteward.archive.courier import Courier, Couriers
from pacsteward.archive.find import KEY_COLUMNS, Finder, Found, outside
from pacsteward.archive.header_json import HeaderTexts
from pacsteward.archive.headers import read_header, selected
from pacsteward.archive.keeper import Keeper
from pacsteward.archive.likeness import NameBook
from pacsteward.archive.metadata import MetadataBook
from pacsteward.archive.missing_index import refuse_missing_index
from pacsteward.archive.model import (
    Incoming,
    Instance,
    Match,
    Origin,
    Selection,
    Space,
    StoreResult,
    VerifyReport,
)
from pacsteward.archive.prompt import PromptArchive
from pacsteward.archive.read import Reader, StoredObject
from pacsteward.archive.rebuild import rebuild
from pacsteward.archive.recent import Recent
from pacsteward.archive.settings import ArchiveSettings
from pacsteward.archive.space import space
from pacsteward.archive.verify import Progress, verify
from pacsteward.archive.watermark import Watermark
from pacsteward.base.clock import Clock
from pacsteward.base.db import Database
from pacsteward.base.errors import Broken, Conflict, PacstewardError, Unavailable, WouldWait
from pacsteward.base.events import FactLog
from pacsteward.dicom.attributes import Level
from pacsteward.dicom.frames import FrameTable, locate_frames
from pacsteward.dicom.matching import Query
from pacsteward.dicom.part10 import FileMeta
from pacsteward.dicom.tags import REQUEST_ATTRIBUTES_SEQUENCE
from pacsteward.security.actor import Actor
from pacsteward.security.audit import AuditBook
from pacsteward.security.audit_entry import AuditEntry

if TYPE_CHECKING:
    from pydicom import Dataset

FRAME_TABLES_BYTES: Final = 16 * 1024 * 1024
"""Frame tables of what was looked at last, in each process."""


class Archive:
    """The vault of one data folder. Made by `as_keeper` or `as_reader`.

    Parameters
    ----------
    is_keeper
        Whether this process writes to the folder.
    """

    def __init__(
        self,
        data_folder: Path,
        database: Database,
        settings: ArchiveSettings,
        clock: Clock,
        facts: FactLog,
        audit: AuditBook,
        *,
        is_keeper: bool,
    ) -> None:
        self._data_folder = data_folder
        self._database = database
        self._settings = settings
        self._clock = clock
        self._facts = facts
        self._audit = audit
        self._watermark = Watermark(data_folder / "run")
        self._finder = Finder(
            database, NameBook(clock.monotonic), timeout_s=settings.query_timeout_s
        )
        self._reader = Reader(database, data_folder)
        self._book = MetadataBook(
            database,
            self._reader,
            data_folder / "cache" / "metadata",
            inline_limit_bytes=settings.metadata_inline_bytes,
            cache_bytes=settings.metadata_cache_bytes,
        )
        self._frames: Recent[tuple[str, int], FrameTable] = Recent(FRAME_TABLES_BYTES, _cost)
        self.prompt = PromptArchive(self._reader, self._watermark, self._frames)
        """What of it may be asked on an event loop."""
        self._keeper = self._new_keeper() if is_keeper else None
        self._watch = CompletenessWatch(database, facts, clock)
        self._client = KeeperClient(data_folder)
        self._couriers = Couriers(data_folder / "run", settings, clock)
        self._arrivals = Arrivals(data_folder / "run", settings, clock)

    @classmethod
    def as_keeper(
        cls,
        data_folder: Path,
        database: Database,
        settings: ArchiveSettings,
        clock: Clock,
        facts: FactLog,
        audit: AuditBook,
    ) -> Archive:
        """Make the archive of the one process that takes instances in; then `start` it.

        Parameters
        ----------
        data_folder
            ``DIR``.
        database
            That holds the index, with its schema in place.
        facts, audit
            Take what the archive announces and records, in the transaction of the change itself.
        """
        return cls(data_folder, database, settings, clock, facts, audit, is_keeper=True)

    @classmethod
    def as_reader(
        cls,
        data_folder: Path,
        database: Database,
        settings: ArchiveSettings,
        clock: Clock,
        facts: FactLog,
        audit: AuditBook,
    ) -> Archive:
        """Make the archive of any other process; the parameters are those of `as_keeper`."""
        return cls(data_folder, database, settings, clock, facts, audit, is_keeper=False)

    async def start(self) -> None:
        """Take possession of the data folder, read on from where the index was, be ready.

        Raises
        ------
        Unavailable
            The database or the disk is away.
        Conflict
            Another process keeps this data folder.
        Unsupported
            A later version wrote to it.
        """
        keeper = self._own_keeper()
        await asyncio.to_thread(keeper.start)
        await keeper.serve()
        self._watch.start()

    async def stop(self) -> None:
        """Let what arrives be finished, write what waits, let go of the data folder."""
        await asyncio.to_thread(self._watch.stop)
        keeper = self._own_keeper()
        await keeper.close()
        await asyncio.to_thread(keeper.stop)

    def close(self) -> None:
        """Let go of a reader's connection to the keeper."""
        self._couriers.close()
        self._client.close()

    # --- taking in -------------------------------------------------------------------------------

    async def open_for_arrivals(self, chunk_bytes: int) -> None:
        """Have a reader take instances in for the keeper; until `close_for_arrivals`.

        Parameters
        ----------
        chunk_bytes
            Of the pieces that `begin_chunk` gives.
        """
        await self._arrivals.open(chunk_bytes)

    async def close_for_arrivals(self) -> None:
        """Take nothing in any more."""
        await self._arrivals.close()

    def begin_chunk(self) -> SharedChunk | None:
        """Give memory to receive into that need not be copied to reach the keeper, if there is any.

        It is given for good: whoever has it lends it again and again.
        """
        return self._arrivals.begin_chunk()

    def receive(self, origin: Origin, meta: FileMeta) -> Incoming:
        """Begin to take an instance while it arrives, on the event loop that keeps or took in.

        Raises
        ------
        Exhausted, Unavailable
            Nothing is taken at the moment; the sender should try again.
        """
        return (self._keeper or self._arrivals).receive(origin, meta)

    def store(self, origin: Origin, meta: FileMeta, data: bytes | memoryview) -> StoreResult:
        """Keep an instance that is here as a whole; when this returns, it is safe.

        Raises
        ------
        Invalid
            The data set is cut short, or names no instance.
        Exhausted, Unavailable
            It could not be kept; the sender should try again.
        """
        if self._keeper is not None:
            return self._keeper.store(origin, meta, data)
        return self._client.store(origin, meta, data)

    async def courier(self) -> Courier | None:
        """Return the way to hand instances to the keeper in memory that it shares.

        None where `store` has to do: in the keeper itself, and while the keeper is away.
        """
        return None if self._keeper is not None else await self._couriers.get()

    # --- finding ---------------------------------------------------------------------------------

    def find(self, query: Query) -> Iterator[Match]:
        """Give the answers to a query, in its order, within its limit and offset.

        Nothing is asked of the database before the first answer is wanted.

        Raises
        ------
        Invalid
            The order names an attribute that answers cannot be ordered by.
        Exhausted
            The database worked too long on it.
        Unavailable
            The index has not caught up with what was acknowledged.
        """
        self._catch_up()
        lacking = outside(query.level, query.returns)
        requestless = tuple(tag for tag in lacking if tag != REQUEST_ATTRIBUTES_SEQUENCE)
        for found in self._finder.find(query):
            tags = lacking if found.may_have_requests else requestless
            more = self._from_object(query.level, found, tags) if tags else None
            yield Match(found.values, more)

    def find_at_once(self, query: Query) -> list[Match]:
        """Return all answers to a query for what stands in few rows; for an event loop.

        Raises
        ------
        WouldWait
            It asks for more, or something has to be waited for: the index, objects, a database on
            the other end of a line.
        """
        if not (self._database.is_near and self._watermark.is_caught_up):
            raise WouldWait
        return [Match(found.values) for found in self._finder.find_at_once(query)]

    def count(self, query: Query) -> int:
        """Return how many answers there are, whatever the query's limit and offset."""
        self._catch_up()
        return self._finder.count(query)

    def unsupported(self, query: Query) -> tuple[int, ...]:
        """Return the keys that should restrict the answers and cannot: they are ignored."""
        return unsupported(query)

    def _from_object(self, level: Level, found: Found, tags: Sequence[int]) -> Dataset | None:
        """Read what is not in the index from one of the objects, where one can be read."""
        instance = self._reader.representative(KEY_COLUMNS[level], found.key)
        if instance is None:
            return None
        try:
            with self._reader.open(instance) as stored:
                return selected(read_header(stored), tags)
        except PacstewardError:
            # The answer is true without it; whoever retrieves the object is told what is wrong.
            return None

    # --- reading ---------------------------------------------------------------------------------

    def instances(self, selection: Selection, *, with_rejected: bool = False) -> list[Instance]:
        """Return what a selection names: by study, series number, instance number, UID."""
        self._catch_up()
        return self._reader.instances(selection, with_rejected=with_rejected)

    def instance(self, study_uid: str, series_uid: str, sop_uid: str) -> Instance:
        """Return one instance; an empty study or series UID is any.

        Raises
        ------
        NotFound
            There is none, or it is rejected.
        """
        self._catch_up()
        return self._reader.instance(study_uid, series_uid, sop_uid)

    def open(self, instance: Instance) -> AbstractContextManager[StoredObject]:
        """Give the bytes of an instance while the block lasts.

        Raises
        ------
        NotFound
            It was removed meanwhile.
        """
        return self._reader.open(instance)

    def frames(self, instance: Instance) -> FrameTable:
        """Return where the frames of an instance are.

        Raises
        ------
        NotFound
            It has no frames.
        Invalid
            It is damaged.
        """
        key = (instance.sop_instance_uid, instance.checksum)
        table = self._frames.get(key)
        if table is None:
            with self._reader.open(instance) as stored:
                table = locate_frames(stored.read, stored.size, stored.transfer_syntax_uid)
            self._frames.put(key, table)
        return table

    def metadata(
        self,
        study_uid: str,
        series_uid: str | None = None,
        sop_uid: str | None = None,
        *,
        base_url: str,
    ) -> tuple[str, Iterator[bytes]]:
        """Return an etag, and the metadata as a DICOM JSON array in pieces.

        Parameters
        ----------
        base_url
            Public address of the DICOMweb service, which BulkDataURIs begin with.

        Raises
        ------
        NotFound
            There is nothing of the kind.
        """
        self._catch_up()
        return self._book.metadata(study_uid, series_uid, sop_uid, base_url=base_url)

    def etag(
        self, study_uid: str, series_uid: str | None = None, sop_uid: str | None = None
    ) -> str:
        """Return the word that `metadata` gives, without making any.

        It changes whenever they may have changed.
        """
        self._catch_up()
        return self._book.etag(study_uid, series_uid, sop_uid)

    def prepare_metadata(self, study_uid: str) -> None:
        """Make the metadata of a study ahead, so that the first reader need not wait."""
        self._catch_up()
        self._book.prepare(study_uid)

    def header(self, instance: Instance) -> dict[str, Any]:
        """Return the metadata of one instance as a DICOM JSON object, of a conflict's content too.

        A BulkDataURI in it is the path that `locate_bulk_data` takes.
        """
        texts = HeaderTexts(self._settings.metadata_inline_bytes)
        with self._reader.open(instance) as stored:
            made: dict[str, Any] = json.loads(texts.text(stored, bulk_data_prefix=""))
        return made

    def bulk_data(self, instance: Instance, path: str) -> tuple[bytes, str]:
        """Return the value that a BulkDataURI ends with, and its media type.

        Raises
        ------
        NotFound
            There is no such value.
        Unsupported
            It is the pixel data of several compressed frames.
        """
        with self._reader.open(instance) as stored:
            found = self._locate(stored, path)
            return found.read(stored.read), found.media_type

    def locate_bulk_data(self, instance: Instance, path: str) -> BulkData:
        """Return where such a value lies, for long ones that are sent in ranges.

        Read it with ``found.read(stored.read, offset, length)`` while the object is open.
        """
        with self._reader.open(instance) as stored:
            return self._locate(stored, path)

    # --- what needs a human ----------------------------------------------------------------------

    def waiting(self) -> doubtful.Waiting:
        """Count what the lists below name."""
        self._catch_up()
        return doubtful.count(self._database)

    def conflicts(self, *, limit: int | None = None) -> list[doubtful.ConflictingContent]:
        """List contents that came under a UID that is taken, the latest first."""
        self._catch_up()
        return doubtful.conflicts(self._database, limit)

    def conflict(self, conflict_key: int) -> doubtful.ConflictingContent:
        """Return what is known of one of them, of a settled one too."""
        return doubtful.conflict(self._database, conflict_key)

    def conflicting_instance(self, conflict_key: int) -> Instance:
        """Return the second content of a conflict, to be opened like any instance."""
        return doubtful.conflicting_instance(self._database, conflict_key)

    def source_of(self, instance: Instance) -> str:
        """Return who sent an instance; empty where it is not known."""
        return doubtful.source_of(self._database, instance)

    def doubtful_patients(self, *, limit: int | None = None) -> list[doubtful.DoubtfulStudy]:
        """List studies whose patient cannot be told for certain, the latest first."""
        self._catch_up()
        return doubtful.studies_of_doubtful_patients(self._database, limit)

    def set_aside(self, *, limit: int | None = None) -> list[doubtful.SetAside]:
        """List acknowledged instances that could not be indexed, the latest first."""
        self._catch_up()
        return doubtful.records_set_aside(self._database, limit)

    def instance_set_aside(self, set_aside_key: int) -> Instance:
        """Return such a record, to be opened like any instance."""
        return doubtful.instance_of_record(self._database, set_aside_key)

    # --- removing --------------------------------------------------------------------------------

    def reject(self, selection: Selection, *, code: str, actor: Actor) -> int:
        """Hide instances from readers; return how many were shown before.

        Parameters
        ----------
        code
            Why, as code^scheme of PS3.16 CID 7011: ``113001^DCM``.
        """
        return int(self._carry_out("reject", remove.reject_arguments(selection, actor, code)))

    def restore(self, selection: Selection, *, actor: Actor) -> int:
        """Show rejected instances again; return how many."""
        return int(self._carry_out("restore", remove.arguments(selection, actor)))

    def delete(self, selection: Selection, *, actor: Actor) -> int:
        """Remove instances for good, hidden ones too; return how many."""
        return int(self._carry_out("delete", remove.arguments(selection, actor)))

    def _carry_out(self, verb: str, arguments: dict[str, Any]) -> Any:
        if self._keeper is not None:
            return self._keeper.call(verb, arguments)
        try:
            return self._client.call(verb, arguments)
        except Unavailable as no_keeper:
            # A command on a house that is closed: keep the folder ourselves for a moment.
            keeper = self._new_keeper()
            try:
                keeper.start()
            except Conflict:
                raise no_keeper from None
            try:
                return keeper.call(verb, arguments)
            finally:
                keeper.stop()

    # --- keeping ---------------------------------------------------------------------------------

    def verify(self, progress: Progress | None = None) -> VerifyReport:
        """Read every stored byte and compare it with its checksum."""
        return verify(self._data_folder, self._database, progress)

    def rebuild(self, progress: Progress | None = None) -> int:
        """Make the index anew from the stored bytes and the ledger; return how many instances.

        Raises
        ------
        Conflict
            The archive is running; stop it first.
        Broken
            The ledger is damaged.
        """
        return rebuild(
            self._data_folder,
            self._database,
            self._clock,
            self._settings,
            progress,
            facts=self._facts,
            audit=self._record,
            tell=remove.teller(self._facts, self._record),
        )

    def need_index(self) -> None:
        """Return if the index can be asked what is stored: it is there, and whole.

        Raises
        ------
        Broken
            It is a new one, while images are stored.
        Conflict
            It was being made anew, and that was interrupted.
        """
        if not self.is_open():
            refuse_missing_index(self._data_folder, self._database)

    def is_open(self) -> bool:
        """Say whether a keeper takes instances in, here or in another process."""
        return self._keeper is not None or self._client.is_there()

    def space(self) -> Space:
        """Return how much room the disk has."""
        return space(self._data_folder, self._settings)

    def scratch_folder(self) -> Path:
        """Return a folder on the archive's disk for files that nobody has to find again."""
        folder = self._data_folder / "cache"
        folder.mkdir(exist_ok=True)
        return folder

    # --- inside ----------------------------------------------------------------------------------

    def _locate(self, stored: StoredObject, path: str) -> BulkData:
        return locate(
            stored.read,
            stored.size,
            stored.transfer_syntax_uid,
            path,
            scratch=self.scratch_folder(),
        )

    def _catch_up(self) -> None:
        self._watermark.wait_until_indexed(self._settings.watermark_wait_s)

    def _own_keeper(self) -> Keeper:
        if self._keeper is None:
            raise Broken("This process does not keep the archive; it only reads it.")
        return self._keeper

    def _new_keeper(self) -> Keeper:
        return Keeper(
            self._data_folder,
            self._database,
            self._clock,
            self._settings,
            facts=self._facts,
            audit=self._record,
            verbs=remove.verbs(),
            tell=remove.teller(self._facts, self._record),
        )

    def _record(self, connection: Connection, entries: Sequence[AuditEntry]) -> None:
        if entries:
            self._audit.record_all(entries, connection)


def _cost(table: FrameTable) -> int:
    return 1024 + len(table.fragments) + len(table.first_fragments)
