r"""A segment: one file of the landing log, and how to walk through its records.

Format 1. A segment is ``landing/000000000012.segment``: 4096 bytes of head, then records
(`record.py`) up to the first place where no record follows. Numbers are little endian::

    offset  size
         0    16  magic "Pacsteward log\r\n"
        16     4  version of the segment format: 1
        20     4  state: 0 prepared, 1 in use
        24     8  generation: random, another one each time the file is used anew
        32     8  sequence of the first record
        40     4  crc32 of these 40 bytes

A record belongs to the log only when its sequence is less than the first sequence of the segment
that follows. So what was written and never synced is cut off for good by the head of the next
segment, whatever the disk made of it.

Prepared segments (``prepared-….segment``) are files of zeros, or used ones from which everything
was removed: writing over blocks that are there already needs no change of the file system's own
records, which makes the sync twice as fast (measured; ``fallocate`` alone gains nothing).
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from isal.isal_zlib import crc32

from pacsteward.archive import disk
from pacsteward.archive.file_range import FileRange
from pacsteward.archive.record import (
    INSTANCE,
    MAGIC,
    FormatIsNewer,
    Record,
    checksum_of,
    decode,
)
from pacsteward.base.errors import Unsupported

VERSION: Final = 1
PREPARED: Final = 0
IN_USE: Final = 1
HEAD_BYTES: Final = 4096
"""Where the first record begins."""

_MAGIC: Final = b"Pacsteward log\r\n"
_HEAD: Final = struct.Struct("<16sIIQQ")
_CHECK: Final = struct.Struct("<I")
_HEAD_SIZE: Final = _HEAD.size + _CHECK.size
_NAME: Final = re.compile(r"([0-9]{12})\.segment")
_STEP: Final = 1 << 20
_SEARCHED_BYTES: Final = 64 << 20
"""How far beyond damage the next record is looked for; more than the longest record."""


@dataclass(frozen=True, slots=True)
class SegmentHead:
    """What the head of a segment says."""

    state: int
    generation: int
    first_sequence: int
    check: int


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment of the log.

    Parameters
    ----------
    before_sequence
        Records from here on do not count: the next segment begins with it. None for the last.
    """

    path: Path
    container: str
    head: SegmentHead
    before_sequence: int | None = None


def segment_path(landing_folder: Path, container: str) -> Path:
    """Return the path of the segment that a location names.

    Raises
    ------
    ValueError
        The name is not that of a segment, so it must not become a path.
    """
    name = f"{container}.segment"
    if not _NAME.fullmatch(name):
        raise ValueError(f"{container!r} is not the name of a segment.")
    return landing_folder / name


def container_of(number: int) -> str:
    """Return the name of the segment with this number."""
    return f"{number:012d}"


def encode_head(state: int, generation: int, first_sequence: int) -> tuple[bytes, SegmentHead]:
    """Return the head's bytes, filled up to `HEAD_BYTES`, and the head."""
    packed = _HEAD.pack(_MAGIC, VERSION, state, generation, first_sequence)
    check = crc32(packed)
    head = (packed + _CHECK.pack(check)).ljust(HEAD_BYTES, b"\0")
    return head, SegmentHead(state, generation, first_sequence, check)


def read_head(descriptor: int) -> SegmentHead | None:
    """Return the head of an open file, or None when it has no sound one.

    Raises
    ------
    Unsupported
        A later version wrote it.
    """
    return parse_head(os.pread(descriptor, _HEAD_SIZE, 0))


# Each read of a segment looks at its head, which hardly ever changes.
@lru_cache(maxsize=64)
def parse_head(data: bytes) -> SegmentHead | None:
    """Return the head that the first bytes of a file are, or None when it is no sound one."""
    if len(data) < _HEAD_SIZE:
        return None
    magic, version, state, generation, first_sequence = _HEAD.unpack_from(data)
    (check,) = _CHECK.unpack_from(data, _HEAD.size)
    if magic != _MAGIC or check != crc32(data[: _HEAD.size]):
        return None
    if version > VERSION:
        raise newer_format("landing log", version, VERSION)
    return SegmentHead(state, generation, first_sequence, check)


def read_generation(descriptor: int) -> int:
    """Return the generation of an open segment, 0 when it has no sound head."""
    head = read_head(descriptor)
    return head.generation if head is not None else 0


def newer_format(what: str, found: int, known: int) -> Unsupported:
    """Say that a later version wrote this."""
    return Unsupported(
        f"The {what} of the data folder cannot be read.",
        why=f"Its format is {found}; this version knows formats up to {known}.",
        remedy="Run the version that wrote it, or a later one.",
    )


def find_segments(landing_folder: Path) -> tuple[list[Segment], list[Path]]:
    """List the segments in the order of their sequences, and files of that name that are none.

    Foreign files are not looked at.
    """
    found: list[tuple[Path, str, SegmentHead]] = []
    damaged: list[Path] = []
    names = sorted(name for name in os.listdir(landing_folder) if _NAME.fullmatch(name))
    for name in names:
        path = landing_folder / name
        descriptor = disk.open_file(path, os.O_RDONLY)
        try:
            head = read_head(descriptor)
        finally:
            os.close(descriptor)
        if head is None or head.state != IN_USE:
            damaged.append(path)
        else:
            found.append((path, name.removesuffix(".segment"), head))
    segments = []
    for index, (path, container, head) in enumerate(found):
        following = found[index + 1][2].first_sequence if index + 1 < len(found) else None
        segments.append(Segment(path, container, head, following))
    return segments, damaged


@contextmanager
def reading(path: Path) -> Iterator[FileRange]:
    """Open a segment to be walked through."""
    descriptor = disk.open_file(path, os.O_RDONLY)
    try:
        yield FileRange(descriptor)
    finally:
        os.close(descriptor)


def walk(segment: FileRange, head: SegmentHead) -> Iterator[Record]:
    """Give the records of a segment in order.

    Where one is damaged, the walk goes on behind it if a later one shows that it had been synced:
    the sequences between are lost. Otherwise the log ends there.

    Raises
    ------
    Unsupported
        A later version wrote a record.
    OSError
        The disk failed.
    """
    offset, expected, previous = HEAD_BYTES, head.first_sequence, head.check
    while True:
        try:
            record = decode(segment, offset)
            if (
                record is None
                or record.generation != head.generation
                or record.sequence != expected
                or record.previous != previous
            ):
                record = _beyond_damage(segment, offset, head.generation, expected)
        except FormatIsNewer as error:
            raise newer_format("landing log", error.version, VERSION) from error
        if record is None:
            return
        yield record
        offset, expected, previous = record.end, record.sequence + 1, record.check


def _beyond_damage(
    segment: FileRange, offset: int, generation: int, expected: int
) -> Record | None:
    """Find a later record which says that the one expected at `offset` had been synced."""
    end = min(segment.size, offset + _SEARCHED_BYTES)
    while offset < end:
        at = segment.window(offset, _STEP + len(MAGIC)).find(MAGIC)
        if at < 0:
            offset += _STEP
            continue
        record = decode(segment, offset + at)
        if (
            record is not None
            and record.generation == generation
            and record.sequence > expected
            and record.safe_sequence >= expected
        ):
            return record
        offset += at + 1
    return None


def has_sound_data(segment: FileRange, record: Record) -> bool:
    """Whether the data set of a record reads as it was written; true for one in its own file."""
    if record.kind != INSTANCE:
        return True
    checksum = 0
    try:
        for piece in segment.slices(record.data_offset, record.data_size):
            checksum = checksum_of(piece, checksum)
    except OSError:
        # A bad sector takes one instance, not the start of the archive.
        return False
    return checksum == record.data_checksum
