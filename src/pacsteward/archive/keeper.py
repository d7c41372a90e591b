"""The keeper: the one owner of a data folder's log, ledger and index.

There is one, in a process of its own. It holds the lock on the folder, so a second one is refused;
it brings the index up to what had landed before a stop or a crash; then it owns the threads of the
write path::

    Ticket ─▶ Committer (asks Arbiter) ─▶ landing log, one sync ─▶ Success
                                        └▶ Indexer ─▶ index, facts, audit

Other processes hand it instances and ask for its verbs over a Unix socket (`handover.py`); what
associations and STOW-RS bring lies in memory that is shared with it (`sharing.py`). Verbs
that change what is stored go through `Keeper.change`: ledger first, then index.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection

from pacsteward.archive import disk
from pacsteward.archive.apply import apply_entry, locations_of
from pacsteward.archive.arbiter import Arbiter
from pacsteward.archive.committer import Committer
from pacsteward.archive.erasure import erase_all
from pacsteward.archive.folder import FolderLock, open_folder, refuse_half_made_index
from pacsteward.archive.handover import Handover
from pacsteward.archive.incoming import IncomingInstance, Reception
from pacsteward.archive.indexer import Audit, Indexer
from pacsteward.archive.kept_room import KeptRoom
from pacsteward.archive.known import (
    landing_position,
    ledger_position,
    move_ledger_position,
)
from pacsteward.archive.landing import Landed, Landing
from pacsteward.archive.ledger import (
    Ledger,
    LedgerEntry,
    Tell,
    deleted_until,
    landed_before,
    read_ledger,
)
from pacsteward.archive.model import Location, Origin, StoreResult
from pacsteward.archive.replay import replay
from pacsteward.archive.settings import ArchiveSettings
from pacsteward.archive.space import SpaceGuard
from pacsteward.archive.spares import PreparedSegments
from pacsteward.archive.storage.local import LocalObjects
from pacsteward.archive.ticket import Ticket
from pacsteward.archive.watermark import Watermark
from pacsteward.base.clock import Clock
from pacsteward.base.db import Database, took_nothing
from pacsteward.base.errors import NotFound, Unavailable
from pacsteward.base.events import FactLog
from pacsteward.dicom.decode import DecoderPool
from pacsteward.dicom.part10 import FileMeta
from pacsteward.dicom.pixels import ImagePixel
from pacsteward.dicom.transcode import FrameCoder

LAG_MAX: Final = 20_000
"""Instances that may wait for the index; more are refused until it has caught up."""

_QUIET_S: Final = 3.0
_THREADS: Final = 4

Verb = Callable[["Keeper", dict[str, Any]], Any]
"""A change that other processes may ask for; JSON values in and out."""

_log = logging.getLogger(__name__)


class Keeper:
    """See the top of the file.

    Parameters
    ----------
    data_folder
        ``DIR``.
    facts, audit
        Where the indexer announces and records what came in.
    verbs
        What `call` offers, by name.
    tell
        Says what was decided, whether it is carried out at once or after a crash.
    code_frame
        Decodes frames to compare an object that came in another transfer syntax; by default a
        child process does it, which is started when it is needed.
    """

    def __init__(
        self,
        data_folder: Path,
        database: Database,
        clock: Clock,
        settings: ArchiveSettings,
        *,
        facts: FactLog,
        audit: Audit,
        verbs: Mapping[str, Verb] | None = None,
        tell: Tell = lambda _connection, _entry: None,
        code_frame: FrameCoder | None = None,
    ) -> None:
        self.data_folder = data_folder
        self.database = database
        self.clock = clock
        self.settings = settings
        self._facts = facts
        self._audit = audit
        self._verbs = dict(verbs or {})
        self._tell = tell
        self._decoders = _Decoders()
        self._code_frame = code_frame or self._decoders.code_frame
        self._write_lock = threading.Lock()
        self._undone: list[LedgerEntry] = []
        """Decisions that are in the ledger and that the index could not take yet."""
        self._handover: Handover | None = None
        self._last_submit = 0.0

    # --- life -------------------------------------------------------------------------------

    def start(self) -> None:
        """Take the folder, bring the index up to date, and be ready to receive.

        Raises
        ------
        Conflict
            Another keeper has the folder.
        Unsupported, Broken
            The folder is of a later version, or damaged.
        Unavailable
            The database or the disk is away.
        """
        self._resources = ExitStack()
        try:
            with disk.speaking("The archive could not be opened."):
                self._open()
        except BaseException:
            self._resources.close()
            raise

    def _open(self) -> None:
        self._take_folder()
        self._guard_space()
        self._prepare_log()
        self._make_write_path()
        self._catch_up()
        self._prepare_reception()
        self._kept_room.keep()
        self._indexer.start()
        self._committer.start(self._arbiter)
        self._spares.start()

    def _take_folder(self) -> None:
        """Be the only one who writes to the folder, and open what lies in it beside the log."""
        self.data_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._resources.callback(FolderLock(self.data_folder).release)
        self.node = open_folder(self.data_folder, self.clock)
        refuse_half_made_index(self.data_folder)
        self.watermark = Watermark(self.data_folder / "run")
        self._resources.callback(self.watermark.close)
        self.objects = LocalObjects(self.data_folder)
        self.objects.prepare()
        self._ledger = Ledger(self.data_folder / "ledger")
        self._resources.callback(self._ledger.close)

    def _guard_space(self) -> None:
        """Watch the room on the disk."""
        self._guard = SpaceGuard(self.data_folder, self.settings, self.clock)
        self._kept_room = KeptRoom(
            self.data_folder,
            room=self._guard.now,
            has_room_for=partial(self._guard.has_room_for, is_held_back=True),
            hold_back=self._guard.hold_back,
        )

    def _prepare_log(self) -> None:
        """Make the log, which `_catch_up` opens, and the stock of its segments."""
        segment_bytes = self.settings.segment_bytes
        self._spares = PreparedSegments(
            self.data_folder / "landing",
            self.database,
            node=self.node,
            segment_bytes=segment_bytes,
            wanted=self.settings.prepared_segments,
            has_room_for=self._guard.has_room_for,
            is_busy=self._is_busy,
            deletions=lambda: deleted_until(read_ledger(self.data_folder / "ledger")),
        )
        self._landing = Landing(
            self.data_folder / "landing", segment_bytes=segment_bytes, spares=self._spares
        )
        self._resources.callback(self._landing.close)

    def _make_write_path(self) -> None:
        """Make who writes, who decides and who indexes; each begins when all is caught up."""
        waits_for_index = self.settings.acknowledge == "indexed"
        self._committer = Committer(
            self._landing,
            self.objects,
            self.watermark,
            follow=self._follow,
            waits_for_index=waits_for_index,
        )
        self._arbiter = Arbiter(
            self.data_folder,
            self.database,
            self.objects,
            resubmit=self._committer.submit,
            answer=self._committer.answer,
            make_up=self._make_up,
            code_frame=self._code_frame,
            must_ask=waits_for_index,
        )
        self._resources.callback(self._decoders.close)
        self._resources.callback(self._arbiter.close)
        self._indexer = Indexer(
            self.data_folder,
            self.database,
            self.clock,
            node=self.node,
            study_quiet_s=self.settings.study_quiet_s,
            facts=self._facts,
            audit=self._audit,
            watermark=self.watermark,
            is_eager=waits_for_index,
            on_indexed=self._indexed,
            write_lock=self._write_lock,
            reread=self._landing.replay,
            make_room=self._make_room,
        )

    def _prepare_reception(self) -> None:
        """Be ready for those who send."""
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="incoming")
        self._resources.callback(self._threads.shutdown)
        self._reception = Reception(
            objects=self.objects,
            clock=self.clock,
            submit=self._submit,
            executor=self._threads,
            big_object_bytes=self.settings.big_object_bytes,
            largest_object_bytes=self.settings.largest_object_bytes,
            header_limits=self.settings.header_limits,
        )

    def _catch_up(self) -> None:
        """Bring the index up to log and ledger."""
        with self.database.read() as connection:
            indexed = landing_position(connection, self.node)
            applied = ledger_position(connection, self.node)
        entries = self._ledger.open(applied)
        self._landing.open(max(indexed, landed_before(entries)))
        self._indexer.begin_at(indexed)
        self.watermark.reset(landed=self._landing.safe_sequence, indexed=indexed)
        # The names of the folders themselves: a new folder that a power cut forgets takes all in
        # it along. At each start, since the one that made them may have been killed before this.
        disk.sync_folder(self.data_folder)
        self.objects.settle(
            {
                one.description.object_container
                for one in self._landing.replay(indexed, is_checked=False)
            }
        )
        self._read_on(indexed, [entry for entry in entries if entry.sequence > applied])
        self._free_again(entries)

    def _read_on(self, indexed: int, undone: Sequence[LedgerEntry]) -> None:
        """Index what landed behind a sequence, and carry out what is undone, in their order."""
        began_at = time.monotonic()
        landed = self._landing.safe_sequence
        replay(
            self._landing.replay(indexed), undone, index=self._indexer.index, decide=self._decide
        )
        self._indexer.go_on_behind(landed)
        self.watermark.reset(landed=landed, indexed=landed)
        if landed > indexed:
            _log.info(
                "%d instances were indexed that had landed before the start, in %.1f s.",
                landed - indexed,
                time.monotonic() - began_at,
            )

    def _free_again(self, entries: Sequence[LedgerEntry]) -> None:
        """Remove what an earlier run could not remove any more before it ended."""
        if entries:
            # Only the last decision can have been interrupted before its bytes were removed.
            self._free(entries[-1].locations)
        self._spares.reclaim(
            location.container
            for entry in entries
            for location in entry.locations
            if location.container_kind == "landing"
        )

    def _decide(self, entry: LedgerEntry) -> None:
        try:
            self._decide_now(entry)
        except Unavailable as error:
            if not self._make_room(error):
                raise
            self._decide_now(entry)

    def _decide_now(self, entry: LedgerEntry) -> None:
        with self.database.write() as connection:
            self._refuse_if_forgetful(connection, self.watermark.indexed)
            self._carry_out(connection, entry)

    def _carry_out(self, connection: Connection, entry: LedgerEntry) -> None:
        """Have index, facts and audit book say what was decided; once, however often asked."""
        if entry.sequence <= ledger_position(connection, self.node):
            # The commit was kept, and the answer to it was lost.
            return
        self._tell(connection, entry)
        apply_entry(connection, entry, self.clock.now())
        move_ledger_position(connection, self.node, entry.sequence)

    async def serve(self) -> None:
        """Listen for other processes of this machine, on the running event loop."""
        self._handover = Handover(self)
        await self._handover.open(self.data_folder / "run")

    async def close(self) -> None:
        """Listen no more."""
        if self._handover is not None:
            await self._handover.close()
            self._handover = None

    def stop(self) -> None:
        """Write what was handed in, index it, and let the folder go."""
        self._committer.stop()
        self._arbiter.close()
        self._indexer.stop()
        self._committer.give_up_waiting()
        self._spares.stop()
        self._resources.close()

    # --- receiving --------------------------------------------------------------------------

    def receive(self, origin: Origin, meta: FileMeta) -> IncomingInstance:
        """Begin to take an instance; on an event loop, or in a thread with `finish_in_thread`.

        Raises
        ------
        Exhausted
            The disk is at its reserve.
        Unavailable
            The index lags too far behind.
        """
        self._check()
        return IncomingInstance(self._reception, origin, meta)

    def take(self, ticket: Ticket) -> None:
        """Take an instance that was examined in another process; `carry_on` writes it.

        From any thread.

        Raises
        ------
        Exhausted, Unavailable
            As `receive` does.
        """
        self._check()
        self._note(ticket)
        self._committer.hand_in(ticket)

    def carry_on(self) -> None:
        """Write in this thread what was taken, unless another one is at it; a batch or two.

        So whatever comes on the same connection waits as long as the disk does, or the database
        that is asked for UIDs.
        """
        self._committer.carry_on()

    def _check(self) -> None:
        self._guard.check()
        if self._indexer.lag > LAG_MAX:
            raise Unavailable(
                "The instance was not stored.",
                why=f"{self._indexer.lag} instances wait for the index.",
                remedy="See that the database runs; the sender will try again.",
            )

    def store(
        self, origin: Origin, meta: FileMeta, data: bytes | bytearray | memoryview
    ) -> StoreResult:
        """Store a whole instance; blocks, so from a thread.

        Raises
        ------
        Invalid, Exhausted, Unavailable
            As `IncomingInstance.finish` does.
        """
        incoming = self.receive(origin, meta)
        incoming.write(memoryview(data))
        return incoming.finish_in_thread()

    def _submit(self, ticket: Ticket) -> None:
        self._note(ticket)
        self._committer.submit(ticket)

    def _note(self, ticket: Ticket) -> None:
        self._last_submit = time.monotonic()
        self._guard.took(ticket.size_bytes)

    def _is_busy(self) -> bool:
        return time.monotonic() - self._last_submit < _QUIET_S

    def _follow(self, landed: Sequence[Landed]) -> None:
        self._indexer.submit(landed)

    def _indexed(self, landed: Sequence[Landed], clashed: Sequence[Landed]) -> None:
        self._arbiter.indexed(landed)
        self._committer.indexed(landed, clashed)
        self._kept_room.keep()

    def _make_room(self, error: Unavailable) -> bool:
        # A server that is only away is tried many times; that says nothing of our quota.
        return self._kept_room.give_up(may_be_quota=self.database.is_sqlite or took_nothing(error))

    # --- changing ---------------------------------------------------------------------------

    def call(self, verb: str, arguments: Mapping[str, Any]) -> Any:
        """Carry out a verb by name; JSON values in and out.

        Raises
        ------
        NotFound
            There is no such verb.
        """
        act = self._verbs.get(verb)
        if act is None:
            raise NotFound(f"The archive has no verb {verb!r}.")
        return act(self, dict(arguments))

    def change(
        self,
        kind: str,
        *,
        actor: str,
        choose: Callable[[Connection], Sequence[str]],
        details: Mapping[str, str] | None = None,
    ) -> LedgerEntry | None:
        """Decide something about stored instances: ledger first, then index.

        Waits until all that was acknowledged before is indexed, so a decision about a study is
        about all of it.

        Parameters
        ----------
        kind
            Of `LedgerEntry`.
        choose
            Names the SOP Instance UIDs; none is no change.
        details
            Of `LedgerEntry`.

        Returns
        -------
        LedgerEntry or None
            What was decided; None when `choose` named nothing.
        """
        self.watermark.wait_until_indexed(self.settings.watermark_wait_s)
        while True:
            self._make_up()
            with self._write_lock:
                # One that was interrupted since then comes first: the index, once it is further
                # than that in the ledger, would pass it over as done.
                if not self._undone:
                    entry = self._decide_on(kind, actor, choose, details or {})
                    break
        if entry is not None:
            self._free(entry.locations)
        return entry

    def _make_up(self) -> None:
        """Carry out what is in the ledger and the index could not take; cut off what is doubtful.

        Before anything else is decided on, and before a sender is told what is stored: it would be
        told that an instance is here which is about to go.
        """
        self._ledger.settle()
        if not self._undone:
            return
        with self._write_lock:
            with self.database.write() as connection:
                for entry in self._undone:
                    self._refuse_if_forgetful(connection, entry.landed_sequence)
                    self._carry_out(connection, entry)
            done, self._undone = self._undone, []
        for entry in done:
            self._free(entry.locations)

    def _decide_on(
        self,
        kind: str,
        actor: str,
        choose: Callable[[Connection], Sequence[str]],
        details: Mapping[str, str],
    ) -> LedgerEntry | None:
        entry: LedgerEntry | None = None
        try:
            with self.database.write() as connection:
                self._refuse_if_forgetful(connection, self.watermark.indexed)
                if uids := list(choose(connection)):
                    entry = self._ledger.append(
                        landed_sequence=landing_position(connection, self.node),
                        at=self.clock.now(),
                        kind=kind,
                        actor=actor,
                        sop_instance_uids=uids,
                        details=details,
                        locations=locations_of(connection, uids) if kind == "deleted" else (),
                    )
                    self._carry_out(connection, entry)
        except BaseException:
            if entry is not None:
                # What is in the ledger has been decided: `_make_up`, or the next start, carries
                # it out.
                self._undone.append(entry)
            raise
        return entry

    def _refuse_if_forgetful(self, connection: Connection, known_sequence: int) -> None:
        """Change nothing while the index lacks what it had already: it would be left out."""
        if landing_position(connection, self.node) < known_sequence:
            raise Unavailable(
                "Nothing was changed.",
                why="The database has lost its last transactions and is brought up to the log.",
                remedy="Try again in a moment.",
            )

    def _free(self, locations: Iterable[Location]) -> None:
        """Remove bytes that nothing names any more; what fails the next start may repeat."""
        segments = erase_all(self.data_folder, self.objects, locations)
        if segments:
            self._spares.reclaim(segments)


class _Decoders:
    """A pool of decoding processes that is made when the first frame comes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool: DecoderPool | None = None

    def code_frame(
        self, data: bytes, from_uid: str, to_uid: str, image: ImagePixel
    ) -> tuple[bytes, str]:
        """Decode and encode one frame in a child process."""
        with self._lock:
            if self._pool is None:
                self._pool = DecoderPool(1)
            pool = self._pool
        return pool.code_frame(data, from_uid, to_uid, image)

    def close(self) -> None:
        """End the children."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()
