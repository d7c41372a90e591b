"""The landing log: where every instance is written first, before it is acknowledged.

The committer appends, writes and syncs (`committer.py`). `Landing.open` finds the end of the log
after a stop or a crash; `Landing.replay` gives again what the index has not seen yet.

**Where the log ends.** Records are written one after the other and synced together; only then are
they acknowledged. After a crash the tail may hold a record that is not whole. When no later record
says that it had been synced (`Record.safe_sequence`), it was never acknowledged: the log ends
before it, and the next record is written in its place. When one does, the disk has lost
something that had been acknowledged: the record is given with `Landed.is_damaged`, and the log
goes on behind it.

**Small batches** are written over zeros: whenever one follows another and makes the file longer, a
mebibyte of them is written behind it. To sync what makes a file longer takes the disk three writes,
since the file system notes the new length and blocks; to sync what is written over takes one
(measured: 110 and 60 us of CPU, and half the time). A large batch would pay more for the zeros than
it saves; for those there are segments that were prepared ahead (`spares.py`).

**After a failure.** A failed write or sync is never repeated on the same file: the segment is
retired and the next record opens another one, which begins with the sequence after the last that
was safe, and so cuts off whatever the failure left behind.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from pacsteward.archive import disk
from pacsteward.archive.file_range import FileRange
from pacsteward.archive.model import Location
from pacsteward.archive.record import ALIGNMENT, OBJECT, Description, Record, aligned, encode
from pacsteward.archive.segment import (
    HEAD_BYTES,
    IN_USE,
    Segment,
    container_of,
    encode_head,
    find_segments,
    has_sound_data,
    reading,
    segment_path,
    walk,
)
from pacsteward.base.disk_failure import FULL
from pacsteward.dicom.header import Header

_NOT_STORED = "The instance was not stored."
_ZEROS = memoryview(bytes(ALIGNMENT))

_SMALL_BYTES: Final = 128 << 10
"""A batch of fewer costs more to sync where it makes the file longer than its share of zeros."""

_PIECE_BYTES: Final = 4 << 20

_AHEAD_BYTES: Final = 1 << 20
_ZEROS_AHEAD: Final = memoryview(bytes(_AHEAD_BYTES))


@dataclass(frozen=True, slots=True)
class Landed:
    """An instance that is in the log: what the indexer, the arbiter and rebuild work on.

    Parameters
    ----------
    header
        As it was read on arrival; None when the record was read back from the log.
    is_damaged
        The data set no longer reads as it was written.
    """

    sequence: int
    description: Description
    file_meta: bytes
    location: Location
    size_bytes: int
    checksum: int
    header: Header | None = None
    is_damaged: bool = False


class Spares(Protocol):
    """Segments that were prepared ahead."""

    def take(self) -> Path | None:
        """Give one away, or None when there is none."""
        ...


class NoSpares:
    """No segment is prepared ahead; each grows as it is written."""

    def take(self) -> Path | None:
        """Return None."""
        return None


class Landing:
    """The log of one data folder. Only one thread may use it at a time.

    Parameters
    ----------
    folder
        ``DIR/landing``.
    segment_bytes
        Size at which another segment is begun.
    spares
        Where prepared segments come from.
    """

    def __init__(self, folder: Path, *, segment_bytes: int, spares: Spares | None = None) -> None:
        self.folder = folder
        self._segment_bytes = segment_bytes
        self._spares: Spares = spares or NoSpares()
        self._descriptor: int | None = None
        self._container = ""
        self._generation = 0
        self._offset = 0
        self._written_to = 0
        self._file_end = 0
        """Length of the segment's file, as far as whole blocks go."""
        self._was_small = True
        """Whether the batch before was a small one."""
        self._unwritten: list[bytes | memoryview] = []
        self._writer = disk.StraightWriter()
        self._previous = 0
        self._last_number = 0
        self._added_sequence = 0
        self.safe_sequence = 0
        """Sequence of the last record that is synced; all before it are, too."""

    # --- start ------------------------------------------------------------------------------

    def open(self, known_sequence: int) -> None:
        """Find the end of the log.

        Parameters
        ----------
        known_sequence
            How far index and ledger know of it, so how far it had been synced; only what follows
            is checked byte by byte. What a decision of the ledger has erased no longer reads as
            it was written, and must not be taken for the torn end.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        segments, damaged = find_segments(self.folder)
        names = [segment.path.stem for segment in segments] + [path.stem for path in damaged]
        self._last_number = max((int(name) for name in names), default=0)
        last_sequence = 0
        if segments:
            # The name of the last one may not be safe yet.
            disk.sync_folder(self.folder)
            last_sequence = self._open_last(segments[-1], known_sequence)
        if last_sequence < known_sequence:
            # Records are known that the log has lost. New ones must not bear their sequences, so
            # they begin another segment.
            self._close()
            last_sequence = known_sequence
        self._added_sequence = self.safe_sequence = last_sequence

    def _open_last(self, segment: Segment, known_sequence: int) -> int:
        """Make the last segment the one to be written to; return the last sequence in it."""
        last_sequence, offset, previous = segment.head.first_sequence - 1, HEAD_BYTES, 0
        previous = segment.head.check
        with reading(segment.path) as file:
            records, synced_until = _trusted(file, segment, known_sequence)
        if records:
            last = records[-1]
            last_sequence, offset, previous = last.sequence, last.end, last.check
        self._descriptor = disk.open_file(segment.path, os.O_RDWR)
        # What a killed process wrote and did not sync is here, and in memory only. From now on a
        # sender may be told that it is stored. Its last sync may have failed, and the system does
        # not write again what it could not write then, unless it is written anew.
        _write_again(self._descriptor, synced_until, offset)
        disk.sync(self._descriptor)
        if offset % disk.BLOCK_BYTES:
            # Its last record is of a format that did not fill its blocks.
            self._close()
            return last_sequence
        self._container = segment.container
        self._generation = segment.head.generation
        self._offset = self._written_to = offset
        self._file_end = _whole_blocks(self._descriptor)
        self._previous = previous
        return last_sequence

    def replay(self, after_sequence: int, *, is_checked: bool = True) -> Iterator[Landed]:
        """Give what landed after `after_sequence`, in order.

        Parameters
        ----------
        is_checked
            Whether the data sets are read, to find damaged ones.
        """
        safe_sequence = self.safe_sequence
        for segment in find_segments(self.folder)[0]:
            before = segment.before_sequence
            if before is not None and before <= after_sequence + 1:
                continue
            with reading(segment.path) as file:
                for record in walk(file, segment.head):
                    if record.sequence > safe_sequence or (
                        before is not None and record.sequence >= before
                    ):
                        break
                    if record.sequence > after_sequence:
                        is_damaged = is_checked and not has_sound_data(file, record)
                        yield landed_of(segment, record, is_damaged=is_damaged)

    # --- writing ----------------------------------------------------------------------------

    def append(
        self,
        description: Description,
        file_meta: bytes,
        data: Sequence[bytes | memoryview],
        *,
        size_bytes: int,
        checksum: int,
        header: Header | None = None,
    ) -> Landed:
        """Add one record to what the next `sync` writes; it is safe once that has come back.

        Parameters
        ----------
        data
            The data set in pieces, written without being joined; empty for one that has a file
            of its own.

        Raises
        ------
        Exhausted, Unavailable
            It was not added. Call `sync` for those before it, then `retire`.
        """
        body_bytes = sum(map(len, data))
        if self.must_turn_over(body_bytes + len(file_meta)):
            with disk.speaking(_NOT_STORED):
                self._turn_over()
        sequence = self._added_sequence + 1
        head, check = encode(
            description,
            file_meta,
            generation=self._generation,
            sequence=sequence,
            safe_sequence=self.safe_sequence,
            data_size=size_bytes,
            data_checksum=checksum,
            previous=self._previous,
        )
        data_offset = self._offset + len(head)
        end = data_offset + body_bytes
        self._offset = aligned(end)
        self._unwritten += (head, *data, _ZEROS[: self._offset - end])
        self._previous = check
        self._added_sequence = sequence
        if description.object_container:
            location = Location(
                "object", description.object_container, 0, description.object_offset, size_bytes
            )
        else:
            location = Location(
                "landing", self._container, self._generation, data_offset, size_bytes
            )
        return Landed(sequence, description, file_meta, location, size_bytes, checksum, header)

    def sync(self) -> None:
        """Write what was added, with one call, and return once it is safe.

        Raises
        ------
        Exhausted, Unavailable
            What was added after `safe_sequence` is lost; the segment is retired.
        """
        if self._added_sequence == self.safe_sequence:
            return
        try:
            with disk.speaking(_NOT_STORED):
                self.write()
                disk.sync(self.descriptor)
        except BaseException:
            self.retire()
            raise
        self.mark_safe(self._added_sequence)

    def mark_safe(self, sequence: int) -> None:
        """Take note that all records up to this one are synced."""
        self.safe_sequence = sequence

    def write(self) -> None:
        """Write what was added, without syncing it; a step of `sync`.

        Raises
        ------
        OSError
            Call `retire`.
        """
        if self._unwritten:
            self._clear_ahead()
            parts, self._unwritten = self._unwritten, []
            self._written_to = self._writer.write_all(self.descriptor, parts, self._written_to)

    def _clear_ahead(self) -> None:
        """Write zeros behind a small batch that makes the file longer, for those that follow it."""
        end = self._offset
        was_small, self._was_small = self._was_small, end - self._written_to < _SMALL_BYTES
        if end <= self._file_end:
            return
        # Where small and large ones take turns, each large one would write over the zeros.
        are_small = was_small and self._was_small
        ahead = min(_AHEAD_BYTES, self._segment_bytes - end) if are_small else 0
        self._file_end = end
        if ahead <= 0:
            return
        try:
            self._file_end = self._writer.write_all(self.descriptor, [_ZEROS_AHEAD[:ahead]], end)
        except OSError as error:
            if error.errno not in FULL:
                raise
            # What the zeros would take may be enough for the batch itself.
            os.ftruncate(self.descriptor, end)

    def retire(self) -> None:
        """Never write to this segment again; forget what was not synced."""
        self._close()
        self._added_sequence = self.safe_sequence

    def close(self) -> None:
        """Let go of the files."""
        self._close()

    @property
    def descriptor(self) -> int:
        """Of the segment that is written to; there must be one."""
        assert self._descriptor is not None
        return self._descriptor

    @property
    def segment_number(self) -> int:
        """Of the segment that was begun last, or tried to be."""
        return self._last_number

    def must_turn_over(self, size_bytes: int) -> bool:
        """Whether a record of this size begins another segment, so that all others must be safe."""
        is_empty = self._offset == HEAD_BYTES
        is_full = not is_empty and self._offset + size_bytes > self._segment_bytes
        return self._descriptor is None or is_full

    @property
    def container(self) -> str:
        """Name of the segment that is written to; empty when there is none."""
        return self._container

    def _turn_over(self) -> None:
        """Begin another segment, since a record is never split."""
        self.sync()
        self._close()
        self._begin_segment()

    def _begin_segment(self) -> None:
        number = self._last_number + 1
        container = container_of(number)
        # Another number each time, also after a failure: a name is never used twice.
        self._last_number = number
        # 63 bits, since that is what a BIGINT of the index holds.
        generation = secrets.randbits(63) or 1
        prepared = self._spares.take()
        path = prepared or self.folder / f"new-{secrets.token_hex(8)}.segment"
        head_bytes, head = encode_head(IN_USE, generation, self.safe_sequence + 1)
        descriptor = disk.open_file(path, os.O_RDWR | os.O_CREAT)
        try:
            disk.write_all(descriptor, [head_bytes], 0)
            # The name is given only after the head is safe, so a segment always has one.
            disk.sync(descriptor)
            disk.rename(path, segment_path(self.folder, container))
            disk.sync_folder(self.folder)
        except BaseException:
            os.close(descriptor)
            if prepared is None:
                path.unlink(missing_ok=True)
            raise
        self._descriptor = descriptor
        self._container = container
        self._generation = generation
        self._offset = self._written_to = HEAD_BYTES
        self._file_end = _whole_blocks(descriptor)
        self._previous = head.check

    def _close(self) -> None:
        self._unwritten = []
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
            self._container = ""


def landed_of(segment: Segment, record: Record, *, is_damaged: bool = False) -> Landed:
    """Return what a record that was read back stands for."""
    description = record.description
    if record.kind == OBJECT:
        location = Location(
            "object",
            description.object_container,
            0,
            description.object_offset,
            record.data_size,
        )
    else:
        location = Location(
            "landing",
            segment.container,
            record.generation,
            record.data_offset,
            record.data_size,
        )
    return Landed(
        record.sequence,
        description,
        record.file_meta,
        location,
        record.data_size,
        record.data_checksum,
        is_damaged=is_damaged,
    )


def _whole_blocks(descriptor: int) -> int:
    return os.fstat(descriptor).st_size & -ALIGNMENT


def _trusted(file: FileRange, segment: Segment, known_sequence: int) -> tuple[list[Record], int]:
    """Return the records up to the first that was never whole, and up to where all was synced."""
    records = list(walk(file, segment.head))
    safe_sequence = max((record.safe_sequence for record in records), default=0)
    trusted: list[Record] = []
    synced_until = HEAD_BYTES
    for record in records:
        is_proven = record.sequence <= max(known_sequence, safe_sequence)
        if is_proven:
            synced_until = record.end
        elif not has_sound_data(file, record):
            break
        trusted.append(record)
    return trusted, synced_until


def _write_again(descriptor: int, begin: int, end: int) -> None:
    """Write bytes over themselves."""
    while begin < end and (data := os.pread(descriptor, min(end - begin, _PIECE_BYTES), begin)):
        begin = disk.write_all(descriptor, [data], begin)
