"""Segments prepared ahead, and old ones used anew.

Writing over blocks that a file has already is twice as fast to sync as making it longer, since the
file system need not write down its own changes. So a few segments of zeros are prepared while
nobody sends, at half the disk's pace at most. How many depends on what is sent: after a burst that
used up the stock it is made larger by as many as were missing. A disk that is at its reserve gets
the stock back. A segment in which nothing is needed any more, because all of it was deleted, is
used anew, or removed when there are enough.

A segment is needed while the index has not passed all its records, while any row names it, while a
big object's only record is in it, and while a reader holds it. It is also needed while its head is
all that cuts off what was never safe at the end of the segment before it: after a write or a sync
that failed, records that were refused may be on the disk there, and would count without it.

That no row names a segment is not enough: rows may be gone for another reason than a deletion. So
the ledger has to say of each of its records that it was deleted, and it is kept where one cannot be
read. One is looked at when something in it is deleted, and at the next start where something was.
One in which only records of big objects ever were stays, since no decision names it: with the usual
`archive.big_object_bytes` it takes less than a thousandth of what they took.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, exists, select

from pacsteward.archive import disk
from pacsteward.archive.known import landing_position, touch_landing_position
from pacsteward.archive.record import OBJECT
from pacsteward.archive.segment import (
    HEAD_BYTES,
    PREPARED,
    Segment,
    encode_head,
    find_segments,
    parse_head,
    reading,
    walk,
)
from pacsteward.archive.tables import CONFLICT, LOCATION, SET_ASIDE
from pacsteward.base.db import Database
from pacsteward.base.errors import PacstewardError, Unavailable

_NAME: Final = re.compile(r"(prepared|new)-[0-9a-f]{16}\.(segment|part)")
_STEP_BYTES: Final = 4 << 20
_WAIT_S: Final = 5.0
_RETRY_S: Final = 0.5
_BUSY_WAIT_S: Final = 0.2
_GROWTH_MAX: Final = 4
"""So many times its first size is the stock at most, however large the bursts."""

_log = logging.getLogger(__name__)


class PreparedSegments:
    """Keeps a small stock of segments that are ready to be written over.

    Parameters
    ----------
    wanted
        Size of the stock at first.
    has_room_for
        Whether the disk has room for so many bytes more.
    is_busy
        Whether somebody is sending just now.
    deletions
        Reads the ledger, as `ledger.deleted_until` gives it.
    """

    def __init__(
        self,
        folder: Path,
        database: Database,
        *,
        node: str,
        segment_bytes: int,
        wanted: int,
        has_room_for: Callable[[int], bool],
        is_busy: Callable[[], bool],
        deletions: Callable[[], Mapping[str, int]],
    ) -> None:
        self._folder = folder
        self._database = database
        self._node = node
        self._segment_bytes = segment_bytes
        self._wanted = wanted
        self._wanted_at_first = wanted
        self._wanted_max = wanted * _GROWTH_MAX
        self._has_been_full = False
        self._has_room_for = has_room_for
        self._is_busy = is_busy
        self._deletions = deletions
        self._deleted_until: Mapping[str, int] | None = None
        """What the ledger says, while several segments are looked at."""
        self._lock = threading.Lock()
        self._stock: list[Path] = []
        self._unneeded: set[str] = set()
        self._last: set[str] = set()
        """Those to be looked at when another segment is begun: of which some was deleted while they
        were written to, or that could not be read."""
        self._cutting: set[str] = set()
        """Needed for no more than what they cut off from the segment before them."""
        self._wake = threading.Event()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="segments", daemon=True)

    def start(self) -> None:
        """Look through what an earlier run has left, and begin to prepare."""
        self._finish_renaming()
        for name in os.listdir(self._folder):
            if not _NAME.fullmatch(name):
                continue
            path = self._folder / name
            is_whole = name.startswith("prepared-") and name.endswith(".segment")
            if is_whole and path.stat().st_size == self._segment_bytes:
                self._stock.append(path)
            else:
                path.unlink(missing_ok=True)
        while len(self._stock) > self._wanted_max:
            self._stock.pop().unlink()
        self._has_been_full = len(self._stock) >= self._wanted
        self._wake.set()
        self._thread.start()

    def _finish_renaming(self) -> None:
        """Give those their name that were to be used anew when an earlier run was killed."""
        for path in find_segments(self._folder)[1]:
            with reading(path) as file:
                head = parse_head(file.window(0, HEAD_BYTES))
            if head is not None and head.state == PREPARED:
                os.rename(path, self._folder / _new_name())

    def stop(self) -> None:
        """End; a segment that is half prepared is removed."""
        self._is_stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def take(self) -> Path | None:
        """Give one away; called by the committer when it begins another segment."""
        with self._lock:
            path = self._stock.pop() if self._stock else None
            if path is None and self._has_been_full:
                self._wanted = min(self._wanted + 1, self._wanted_max)
            self._unneeded |= self._last
            self._last = set()
        self._wake.set()
        return path

    def reclaim(self, containers: Iterable[str]) -> None:
        """Look whether these segments are still needed, in a moment."""
        with self._lock:
            self._unneeded.update(containers)
        self._wake.set()

    # --- the thread -------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._is_stopping:
            self._wake.wait(_RETRY_S if self._unneeded else _WAIT_S)
            self._wake.clear()
            try:
                self._make_room()
                self._reclaim_all()
                while self._is_short() and self._has_room_for_one_more():
                    self._prepare()
            except (OSError, PacstewardError) as error:
                # For comfort only: without it the log grows as it is written.
                _log.warning("No segment could be prepared or given back. %s", error)
                self._sleep(_WAIT_S)

    def _is_short(self) -> bool:
        with self._lock:
            return not self._is_stopping and len(self._stock) < self._wanted

    def _has_room_for_one_more(self) -> bool:
        # The disk has to have room for three times as much as the stock would take.
        return self._has_room_for((len(self._stock) + 1) * self._segment_bytes)

    def _make_room(self) -> None:
        """Give the disk back what is prepared while it is so full that instances are refused."""
        while not self._has_room_for(0):
            with self._lock:
                path = self._stock.pop() if self._stock else None
            if path is None:
                return
            path.unlink()
            # What is missing from now on was not used up by a burst.
            self._wanted, self._has_been_full = self._wanted_at_first, False

    def _sleep(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not self._is_stopping and time.monotonic() < deadline:
            time.sleep(min(0.1, seconds))

    def _prepare(self) -> None:
        name = f"prepared-{secrets.token_hex(8)}"
        path = self._folder / f"{name}.part"
        zeros = bytes(_STEP_BYTES)
        writer = disk.StraightWriter()
        descriptor = disk.open_file(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            offset = 0
            while offset < self._segment_bytes and self._is_short() and self._has_room_for(0):
                if self._is_busy():
                    # A used segment that is given back meanwhile may do as well.
                    self._reclaim_all()
                    self._sleep(_BUSY_WAIT_S)
                    continue
                began_at = time.monotonic()
                size = min(_STEP_BYTES, self._segment_bytes - offset)
                offset = writer.write_all(descriptor, [zeros[:size]], offset)
                os.fdatasync(descriptor)
                self._sleep(time.monotonic() - began_at)
            is_whole = offset >= self._segment_bytes
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        if is_whole:
            self._put(path, self._folder / f"{name}.segment")
        else:
            path.unlink(missing_ok=True)

    def _put(self, path: Path, prepared: Path) -> None:
        os.rename(path, prepared)
        disk.sync_folder(self._folder)
        with self._lock:
            self._stock.append(prepared)
            self._has_been_full |= len(self._stock) >= self._wanted

    # --- used segments ----------------------------------------------------------------------

    def _reclaim_all(self) -> None:
        with self._lock:
            waiting, self._unneeded = self._unneeded, set()
        if not waiting:
            return
        try:
            self._reclaim_each(waiting)
        except BaseException:
            with self._lock:
                self._unneeded |= waiting
            raise
        finally:
            self._deleted_until = None

    def _reclaim_each(self, waiting: set[str]) -> None:
        """Look at these segments; what is left in `waiting` has not been looked at."""
        before: Segment | None = None
        for segment, following in pairwise([*find_segments(self._folder)[0], None]):
            assert segment is not None
            if segment.container in waiting:
                if not self._tried(segment, before, following):
                    with self._lock:
                        # A reader holds it, or the index has not passed it: look again later.
                        self._unneeded.add(segment.container)
                waiting.discard(segment.container)
            if segment.path.exists():
                before = segment
            else:
                with self._lock:
                    # What one of these cut off may have gone with it.
                    self._unneeded |= self._cutting
                    self._cutting = set()

    def _tried(self, segment: Segment, before: Segment | None, following: Segment | None) -> bool:
        """Do as `_reclaim` does; one is put off when it, or the ledger, cannot be read."""
        try:
            return self._reclaim(segment, before, following)
        except Unavailable:
            # The database is away, so it would be the same with each of them.
            raise
        except (OSError, PacstewardError) as error:
            _log.warning("%s could not be looked at. %s", segment.path.name, error)
            with self._lock:
                self._last.add(segment.container)
            return True

    def _reclaim(self, segment: Segment, before: Segment | None, following: Segment | None) -> bool:
        """Take a segment back if nothing in it is needed; false to look again later.

        Parameters
        ----------
        before, following
            Those beside it, if there are any.
        """
        if segment.before_sequence is None:
            # It is being written to. Of one that is begun meanwhile the name is not there yet; so
            # it may be looked at only when the one behind that is begun.
            with self._lock:
                self._last.add(segment.container)
            return True
        with self._database.read() as connection:
            # The usual answer, and the cheapest question.
            if self._is_named(connection, segment.container):
                return True
            # These two are asked again below. While one of them is in the way, this is tried twice
            # a second, and segment and ledger are long to read.
            if not self._has_been_passed(connection, segment):
                return False
        if _is_leased(segment):
            return False
        if not _is_whole(segment, following):
            _log.error(
                "%s is kept: some of its records cannot be read, and they may not be deleted ones. "
                "See what `pacsteward archive verify` says.",
                segment.path.name,
            )
            return True
        if not self._was_deleted(segment):
            return True
        # A transaction that is on the disk when it ends: those of the indexer are not, and what
        # they said of this segment must not be forgotten once it is gone.
        with self._database.write() as connection:
            touch_landing_position(connection, self._node)
            if not self._has_been_passed(connection, segment):
                return False
            if self._is_named(connection, segment.container):
                return True
            if self._has_live_objects(connection, segment):
                return True
        if before is not None and (_cuts_off(segment, before) or not _is_whole(before, segment)):
            self._cutting.add(segment.container)
            return True
        descriptor = disk.open_file(segment.path, os.O_RDWR)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            self._use_anew(segment.path, descriptor)
        finally:
            os.close(descriptor)
        return True

    def _has_been_passed(self, connection: Connection, segment: Segment) -> bool:
        """Whether all records that count are in the index, or have been."""
        assert segment.before_sequence is not None
        return landing_position(connection, self._node) >= segment.before_sequence - 1

    def _was_deleted(self, segment: Segment) -> bool:
        """Whether the ledger says of each record that counts that it was deleted."""
        if self._deleted_until is None:
            self._deleted_until = self._deletions()
        assert segment.before_sequence is not None
        with reading(segment.path) as file:
            return all(
                record.sequence <= self._deleted_until.get(record.description.sop_instance_uid, 0)
                for record in walk(file, segment.head)
                if record.sequence < segment.before_sequence
            )

    def _use_anew(self, path: Path, descriptor: int) -> None:
        found = os.fstat(descriptor)
        has_all_blocks = found.st_blocks * 512 >= self._segment_bytes
        is_welcome = self._is_short() and found.st_size == self._segment_bytes and has_all_blocks
        if not is_welcome:
            path.unlink()
            disk.sync_folder(self._folder)
            return
        # The new generation is safe before the name changes: whoever opened the file under its
        # old name and reads now sees that it holds something else.
        head, _ = encode_head(PREPARED, secrets.randbits(63) or 1, 0)
        disk.write_all(descriptor, [head], 0)
        disk.sync(descriptor)
        self._put(path, self._folder / _new_name())

    @staticmethod
    def _is_named(connection: Connection, container: str) -> bool:
        return any(
            connection.execute(
                select(
                    exists().where(
                        table.c.container_kind == "landing", table.c.container == container
                    )
                )
            ).scalar()
            for table in (LOCATION, CONFLICT, SET_ASIDE)
        )

    @staticmethod
    def _has_live_objects(connection: Connection, segment: Segment) -> bool:
        """Whether a record of a big object that is still stored is in the segment."""
        with reading(segment.path) as file:
            return any(
                connection.execute(
                    select(
                        exists().where(
                            table.c.container_kind == "object",
                            table.c.container == record.description.object_container,
                        )
                    )
                ).scalar()
                for record in walk(file, segment.head)
                if record.kind == OBJECT
                for table in (LOCATION, CONFLICT, SET_ASIDE)
            )


def _new_name() -> str:
    return f"prepared-{secrets.token_hex(8)}.segment"


def _is_leased(segment: Segment) -> bool:
    """Whether a reader holds it just now."""
    descriptor = disk.open_file(segment.path, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _is_whole(segment: Segment, following: Segment | None) -> bool:
    """Whether every record that a segment ever had can be read.

    Parameters
    ----------
    following
        The next one that is there. Where it is the one that was begun behind this one, it tells
        how far this one went.

    Raises
    ------
    OSError
        The disk failed.
    """
    expected = segment.head.first_sequence
    with reading(segment.path) as file:
        for record in walk(file, segment.head):
            if record.sequence != expected:
                return False
            expected += 1
    if following is None or int(following.container) != int(segment.container) + 1:
        return True
    return expected >= following.head.first_sequence


def _cuts_off(segment: Segment, before: Segment) -> bool:
    """Whether records of the segment before this one would count if this one were not there."""
    first, end = segment.head.first_sequence, segment.before_sequence
    assert end is not None
    try:
        with reading(before.path) as file:
            return any(first <= record.sequence < end for record in walk(file, before.head))
    except OSError as error:
        _log.warning(
            "%s is kept, since the end of the one before it cannot be read. %s",
            segment.path.name,
            error,
        )
        return True
