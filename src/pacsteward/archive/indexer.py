"""The index follows the landing log.

One thread takes what the committer has made safe and writes it to the index, a batch in one
transaction with its facts, its audit entries and the position in the log. So nothing is counted or
announced twice, and after a crash the log is simply read on from that position.

A batch takes in what arrives within `LINGER_S`, since the cost of a transaction is shared by its
instances; but as soon as a reader waits, or a sender whose Success waits for the index, it goes
ahead with what it has.

A record that cannot be digested stops nothing: it is set aside, where people see it and its bytes
can be had by its UID. While the database is away the log waits; `lag` tells the committer when to
refuse more.

Its transactions do not wait for the disk. A PostgreSQL server that crashes forgets the last of
them, and this process lives on: so each transaction looks whether the index is where the one before
left it, and what was forgotten is read again from the log.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, insert

from pacsteward.archive import disk
from pacsteward.archive.containers import stored_data
from pacsteward.archive.events import RecordSetAside
from pacsteward.archive.index_batch import Item, Written, write_batch
from pacsteward.archive.index_insert import Raced
from pacsteward.archive.known import landing_position, move_landing_position, place_of
from pacsteward.archive.landing import Landed
from pacsteward.archive.tables import SET_ASIDE
from pacsteward.archive.trail import audit_entries
from pacsteward.archive.watermark import Watermark
from pacsteward.base import faults
from pacsteward.base.clock import Clock
from pacsteward.base.db import Database
from pacsteward.base.errors import Broken, PacstewardError, Unavailable
from pacsteward.base.events import FactLog
from pacsteward.dicom.header import Header, read_header
from pacsteward.security.audit_entry import AuditEntry

LINGER_S: Final = 0.25
"""How long a batch waits for company when nobody waits for it."""

BATCH_MAX: Final = 500
"""Instances in a batch; readers wait for its end."""

_GLANCE_S: Final = 0.004
_LOOK_S: Final = 1.0
"""How often it is looked whether a server has forgotten something, while nothing arrives."""
_RETRY_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0)

Audit = Callable[[Connection, Sequence[AuditEntry]], object]
"""Puts entries into the audit book in the caller's transaction."""

OnIndexed = Callable[[Sequence[Landed], Sequence[Landed]], None]

_log = logging.getLogger(__name__)


class NotWhereItWas(Unavailable):
    """The index is at another position than the last transaction left it at."""

    def __init__(self, found: int) -> None:
        super().__init__(
            "The index is not where it was left.",
            why="The database has lost its last transactions, or kept one unconfirmed.",
            remedy="It is brought up to the log by itself.",
        )
        self.found = found


class Indexer:
    """Writes what landed to the index.

    Parameters
    ----------
    data_folder
        ``DIR``, where the headers of replayed records are read.
    node
        Name of this landing log among those that share the database.
    study_quiet_s
        After so long without a new instance a study counts as complete; None leaves that alone.
    facts, audit
        None when what is indexed was told before, as in a rebuild.
    is_eager
        Batches never linger; when Success waits for the index.
    on_indexed
        Called with what is in the index now, and those of them that clashed with what another
        node had stored meanwhile.
    write_lock
        Held while the index is written, so that verbs and batches follow each other.
    reread
        Reads the log again behind a sequence.
    make_room
        Called with the error when the index cannot be written; says whether there is more room than
        before.
    """

    def __init__(
        self,
        data_folder: Path,
        database: Database,
        clock: Clock,
        *,
        node: str,
        study_quiet_s: float | None,
        facts: FactLog | None,
        audit: Audit | None,
        watermark: Watermark,
        is_eager: bool = False,
        on_indexed: OnIndexed = lambda _landed, _clashed: None,
        write_lock: threading.Lock | None = None,
        reread: Callable[[int], Iterable[Landed]] = lambda _sequence: (),
        make_room: Callable[[Unavailable], bool] = lambda _error: False,
    ) -> None:
        self._data_folder = data_folder
        self._database = database
        self._clock = clock
        self._node = node
        self._quiet = None if study_quiet_s is None else timedelta(seconds=study_quiet_s)
        self._facts = facts
        self._audit = audit
        self._watermark = watermark
        self._is_eager = is_eager
        self._on_indexed = on_indexed
        self._write_lock = write_lock or threading.Lock()
        self._reread = reread
        self._make_room = make_room
        self._position: int | None = None
        self._forgotten_until = 0
        self._clashed: dict[int, Landed] = {}
        """By its sequence, of the batch that is being written, whichever attempt found it."""
        self._waiting: deque[Landed] = deque()
        self._arrived = threading.Event()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="indexer", daemon=True)

    @property
    def lag(self) -> int:
        """How many instances are safe and not yet indexed."""
        return len(self._waiting)

    def begin_at(self, sequence: int) -> None:
        """Expect the index at this position; without it, wherever it is."""
        self._position = sequence

    def go_on_behind(self, sequence: int) -> None:
        """Go on behind a sequence when all that the log has up to it is indexed.

        Raises
        ------
        Unavailable
            The database is away.
        """
        assert self._position is not None
        if self._position < sequence:
            self._pass_over(sequence)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def stop(self) -> None:
        """Write what waits, and end. What cannot be written now is read from the log later."""
        self._is_stopping = True
        self._arrived.set()
        if self._thread.is_alive():
            self._thread.join()

    def submit(self, landed: Sequence[Landed]) -> None:
        """Take what has become safe, in the order of the log."""
        self._waiting.extend(landed)
        self._arrived.set()

    # --- the thread -------------------------------------------------------------------------

    def _run(self) -> None:
        failures = 0
        while True:
            if not self._arrived.wait(_LOOK_S):
                self._look()
            self._linger()
            batch = [self._waiting[index] for index in range(min(len(self._waiting), BATCH_MAX))]
            if not batch and not self._forgotten_until:
                self._arrived.clear()
                if self._is_stopping and not self._waiting:
                    return
                if self._waiting:
                    self._arrived.set()
                continue
            try:
                self._index_forgotten()
                self.index(batch)
            except NotWhereItWas as error:
                self._go_back(error.found)
                continue
            except Exception as error:  # noqa: BLE001
                # Also for a fault of ours: nothing else would start this thread again, and the log
                # would wait until the next start of the keeper.
                failures += 1
                _log.warning(
                    "The index cannot be written, so the log waits. %s",
                    error if isinstance(error, Unavailable) else type(error).__name__,
                    exc_info=not isinstance(error, Unavailable),
                )
                if self._is_stopping:
                    return
                time.sleep(_RETRY_S[min(failures, len(_RETRY_S)) - 1])
                continue
            failures = 0
            for _ in batch:
                self._waiting.popleft()

    def _linger(self) -> None:
        if self._is_eager:
            return
        deadline = time.monotonic() + LINGER_S
        while (
            time.monotonic() < deadline
            and len(self._waiting) < BATCH_MAX
            and not self._watermark.is_wanted
            and not self._is_stopping
        ):
            time.sleep(_GLANCE_S)

    # --- what the database forgot -----------------------------------------------------------

    def _look(self) -> None:
        """See whether the index is where it was left, while nothing arrives."""
        if self._database.is_sqlite or self._position is None:
            # An embedded database crashes with this process, and the start reads the log on.
            return
        try:
            with self._database.read() as connection:
                self._check(connection)
        except NotWhereItWas as error:
            self._go_back(error.found)
        except Unavailable:
            # It says so when there is something to write.
            return
        except Exception:  # noqa: BLE001
            # As in `_run`: nothing else would start this thread again.
            _log.exception("Nobody knows whether the index is where it was left.")

    def _check(self, connection: Connection) -> None:
        if self._position is None:
            return
        found = landing_position(connection, self._node)
        if found != self._position:
            raise NotWhereItWas(found)

    def _go_back(self, found: int) -> None:
        """Go on from where the index is."""
        assert self._position is not None
        if found < self._position:
            _log.warning(
                "The database has forgotten %d instances; they are indexed again from the log.",
                self._position - found,
            )
            self._forgotten_until = max(self._forgotten_until, self._position)
            self._watermark.indexed = found
            self._arrived.set()
        self._position = found

    def _index_forgotten(self) -> None:
        if not self._forgotten_until:
            return
        assert self._position is not None
        batch: list[Landed] = []
        with disk.speaking("The index could not be brought up to the log."):
            for landed in self._reread(self._position):
                if landed.sequence > self._forgotten_until:
                    break
                batch.append(landed)
                if len(batch) == BATCH_MAX:
                    self.index(batch)
                    batch = []
            self.index(batch)
        self.go_on_behind(self._forgotten_until)
        self._forgotten_until = 0

    def _pass_over(self, sequence: int) -> None:
        """Go on behind what neither the index nor the log has any more: all else waits for it."""
        assert self._position is not None
        with self._write_lock, self._database.write() as connection:
            self._check(connection)
            move_landing_position(connection, self._node, sequence)
        # Only now, since until it is written it is tried again and again.
        _log.error(
            "%d instances at most are lost: the database has forgotten them, and the log has lost "
            "its end. Have what was received last sent again.",
            sequence - self._position,
        )
        self._position = self._watermark.indexed = sequence

    # --- a batch ----------------------------------------------------------------------------

    def index(self, batch: Sequence[Landed]) -> None:
        """Write a batch; also used to read the log on after a start.

        Raises
        ------
        Unavailable
            The database is away; nothing of the batch is written that is not said to be.
        """
        try:
            self._index(batch)
        except NotWhereItWas:
            raise
        except Unavailable as error:
            if not self._make_room(error):
                raise
            self._index(batch)

    def _index(self, batch: Sequence[Landed]) -> None:
        if not batch:
            return
        # Not what an attempt before this one has written, although it failed in the end.
        fresh = [one for one in batch if self._position is None or one.sequence > self._position]
        try:
            if fresh:
                self._write(fresh)
        except Unavailable:
            raise
        except Exception:  # noqa: BLE001
            # Whatever one record does to us must not hold up the others: an acknowledged
            # instance is either indexed or set aside, and both can be seen.
            for landed in fresh:
                self._write_alone(landed)
        self._watermark.indexed = batch[-1].sequence
        clashed, self._clashed = self._clashed, {}
        self._on_indexed(batch, list(clashed.values()))

    def _write(self, batch: Sequence[Landed]) -> None:
        items = [Item(landed, self._header(landed)) for landed in batch]
        while True:
            try:
                with self._write_lock, self._database.write(durable=False) as connection:
                    self._check(connection)
                    now = self._clock.now()
                    completes_at = now + self._quiet if self._quiet is not None else None
                    written = write_batch(connection, items, now=now, completes_at=completes_at)
                    move_landing_position(connection, self._node, batch[-1].sequence)
                    self._announce(connection, written)
                    # Noted before the commit, which may be kept although nobody is told of it.
                    self._clashed |= _clashed(written)
                    faults.reach("before-commit")
                self._wrote(batch[-1].sequence)
                faults.reach("after-commit")
                return
            except Raced:
                continue
            except OSError as error:
                # Not the record's fault, so nothing is set aside for it.
                raise Unavailable(
                    "The index could not be written.",
                    why=os.strerror(error.errno or 0),
                    remedy="See the system's log for the disk.",
                ) from error

    def _wrote(self, sequence: int) -> None:
        if self._position is not None:
            self._position = sequence

    def _announce(self, connection: Connection, written: Written) -> None:
        if self._facts is not None:
            self._facts.append(connection, *written.facts)
        if self._audit is None:
            return
        entries = audit_entries([*written.stored, *written.conflicts])
        if entries:
            # Last, since other writers of the audit book wait from here on.
            self._audit(connection, entries)

    def _write_alone(self, landed: Landed) -> None:
        try:
            self._write([landed])
        except Unavailable:
            raise
        except Exception as error:  # noqa: BLE001
            _log.warning(
                "Instance %s could not be indexed and is set aside.",
                landed.description.sop_instance_uid,
                exc_info=not isinstance(error, PacstewardError),
            )
            self._set_aside(landed, _reason(error))

    def _set_aside(self, landed: Landed, why: str) -> None:
        description = landed.description
        with self._write_lock, self._database.write() as connection:
            self._check(connection)
            inserted = connection.execute(
                insert(SET_ASIDE).values(
                    sop_instance_uid=description.sop_instance_uid,
                    transfer_syntax_uid=description.transfer_syntax_uid,
                    why=why,
                    received_at=description.received_at,
                    **place_of(landed.location),
                )
            )
            key = inserted.inserted_primary_key
            assert key is not None
            move_landing_position(connection, self._node, landed.sequence)
            fact = RecordSetAside(
                set_aside_key=int(key[0]),
                sop_instance_uid=description.sop_instance_uid,
                why=why,
            )
            if self._facts is not None:
                self._facts.append(connection, fact)
        self._wrote(landed.sequence)

    def _header(self, landed: Landed) -> Header:
        if landed.header is not None:
            return landed.header
        return header_of(self._data_folder, landed)


def header_of(data_folder: Path, landed: Landed) -> Header:
    """Read the header of a record that came back from the log.

    Raises
    ------
    Broken, Invalid, NotFound
        The bytes are damaged or gone.
    """
    if landed.is_damaged:
        raise Broken(
            f"The bytes of instance {landed.description.sop_instance_uid} are damaged.",
            why="Their checksum does not fit what was received.",
            remedy="Have it sent again, or restore it from the backup.",
        )
    with stored_data(data_folder, landed.location) as data:
        return read_header(data, landed.description.transfer_syntax_uid)


def _clashed(written: Written) -> dict[int, Landed]:
    """Return those of the conflicts that the arbiter did not know of, by their sequence."""
    return {one.sequence: one for one in written.conflicts if not one.description.is_conflict}


def _reason(error: Exception) -> str:
    """Say why, without what the error quotes: it may be a patient's name."""
    if isinstance(error, PacstewardError):
        return str(error)[:500]
    return f"{type(error).__name__} while it was indexed."
