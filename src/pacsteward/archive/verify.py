"""Reading every stored byte and comparing it with what was received.

Segments of the landing log are read once from front to back: each record's head, its place in the
chain and its data set are checked, and each row of the index must find its record. Big objects are
read file by file. What was deleted while this ran is not damage. Files of big objects that nothing
names are listed (`unnamed.py`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, func, select

from pacsteward.archive.containers import opened
from pacsteward.archive.file_range import FileRange
from pacsteward.archive.ledger import read_ledger
from pacsteward.archive.model import Damage, Location, VerifyReport
from pacsteward.archive.record import checksum_of
from pacsteward.archive.segment import read_head, walk
from pacsteward.archive.tables import CONFLICT, INSTANCE, LOCATION, SET_ASIDE
from pacsteward.archive.unnamed import unnamed_files
from pacsteward.base.db import Database
from pacsteward.base.errors import Broken, Invalid, NotFound
from pacsteward.dicom.fragments import Buffer
from pacsteward.dicom.part10 import split_part10
from pacsteward.dicom.uids import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN

Progress = Callable[[int, int], None]
"""Told how many were done, of how many."""

_PAGE: Final = 1000
_PART10_HEAD_MAX: Final = 1 << 20
_MISTAKEN_FOR_EACH_OTHER: Final = {EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN}
_PREAMBLE: Final = bytes(128) + b"DICM"


@dataclass(frozen=True, slots=True)
class _Copy:
    """Bytes that the index names; a checksum of None stands in the record only."""

    sop_instance_uid: str
    location: Location
    checksum: int | None
    file_meta: bytes = b""


def verify(data_folder: Path, database: Database, progress: Progress | None = None) -> VerifyReport:
    """Check all that the index names.

    Parameters
    ----------
    progress
        Called as the work goes on.
    """
    check = _Check(data_folder, database, progress)
    check.ledger()
    for container in check.containers():
        check.segment(container)
    for copies in check.objects():
        for copy in copies:
            check.object(copy)
    unnamed = unnamed_files(data_folder, database)
    return VerifyReport(check.done, check.bytes_read, tuple(check.damages), tuple(unnamed))


class _Check:
    """One pass."""

    def __init__(self, data_folder: Path, database: Database, progress: Progress | None) -> None:
        self._data_folder = data_folder
        self._database = database
        self._progress = progress or (lambda _done, _total: None)
        self.done = 0
        self.bytes_read = 0
        self.damages: list[Damage] = []
        with database.read() as connection:
            self._total = sum(
                connection.execute(select(func.count()).select_from(table)).scalar_one()
                for table in (LOCATION, CONFLICT, SET_ASIDE)
            )

    # --- what is named ----------------------------------------------------------------------

    def containers(self) -> list[str]:
        """Return the segments that the index names."""
        found: set[str] = set()
        with self._database.read() as connection:
            for table in (LOCATION, CONFLICT, SET_ASIDE):
                query = (
                    select(table.c.container).distinct().where(table.c.container_kind == "landing")
                )
                found.update(connection.execute(query).scalars())
        return sorted(found)

    def objects(self) -> Iterator[Sequence[_Copy]]:
        """Give the big objects that the index names, a page at a time."""
        last_key = 0
        while True:
            with self._database.read() as connection:
                rows = connection.execute(
                    select(
                        LOCATION.c.instance_key,
                        INSTANCE.c.sop_instance_uid,
                        INSTANCE.c.checksum,
                        LOCATION.c.file_meta,
                        *_places(LOCATION),
                    )
                    .join(INSTANCE, INSTANCE.c.instance_key == LOCATION.c.instance_key)
                    .where(
                        LOCATION.c.container_kind == "object", LOCATION.c.instance_key > last_key
                    )
                    .order_by(LOCATION.c.instance_key)
                    .limit(_PAGE)
                ).all()
            if not rows:
                break
            last_key = rows[-1][0]
            yield [
                _Copy(uid, Location(*place), checksum, file_meta)
                for _, uid, checksum, file_meta, *place in rows
            ]
        with self._database.read() as connection:
            yield _others(connection, "object", None)

    def _of_segment(self, container: str) -> dict[int, list[_Copy]]:
        """Return what the index names in a segment, by offset."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(INSTANCE.c.sop_instance_uid, INSTANCE.c.checksum, *_places(LOCATION))
                .join(INSTANCE, INSTANCE.c.instance_key == LOCATION.c.instance_key)
                .where(LOCATION.c.container_kind == "landing", LOCATION.c.container == container)
            )
            copies = [_Copy(uid, Location(*place), checksum) for uid, checksum, *place in rows]
            copies += _others(connection, "landing", container)
        by_offset: dict[int, list[_Copy]] = {}
        for copy in copies:
            by_offset.setdefault(copy.location.offset, []).append(copy)
        return by_offset

    # --- checking ---------------------------------------------------------------------------

    def ledger(self) -> None:
        """Check the journal of decisions."""
        try:
            read_ledger(self._data_folder / "ledger")
        except Broken as error:
            self.damages.append(Damage("", str(error)))

    def segment(self, container: str) -> None:
        """Check one segment of the landing log."""
        named = self._of_segment(container)
        if not named:
            return
        any_copy = next(iter(named.values()))[0]
        try:
            with opened(self._data_folder, any_copy.location) as descriptor:
                self._walk(FileRange(descriptor), descriptor, named)
        except (OSError, NotFound) as error:
            for copies in named.values():
                for copy in copies:
                    self._count(copy, _unreadable(error))

    def _walk(self, file: FileRange, descriptor: int, named: dict[int, list[_Copy]]) -> None:
        head = read_head(descriptor)
        assert head is not None
        for record in walk(file, head):
            for copy in named.pop(record.data_offset, ()):
                self._compare(copy, file, record.data_checksum)
        for offset in list(named):
            for copy in named.pop(offset):
                self._compare(copy, file, None)

    def _compare(self, copy: _Copy, file: FileRange, record_checksum: int | None) -> None:
        """Compare the bytes with the index, and with the record's head where there is one."""
        place = copy.location
        if place.offset + place.length > file.size:
            self._count(copy, "The segment is shorter than the instance in it.")
            return
        try:
            found = self._checksum(file.slices(place.offset, place.length))
        except OSError as error:
            self._count(copy, _unreadable(error))
            return
        if copy.checksum not in (None, found) or record_checksum not in (None, found):
            self._count(copy, "Its bytes are not those that were received.")
        elif record_checksum is None:
            self._count(copy, "The head of its record is damaged; its own bytes are sound.")
        else:
            self._count(copy, "")

    def object(self, copy: _Copy) -> None:
        """Check one big object."""
        try:
            with opened(self._data_folder, copy.location) as descriptor:
                size = min(copy.location.offset, _PART10_HEAD_MAX)
                head = os.pread(descriptor, size, 0)
                data = FileRange(descriptor, copy.location.offset)
                found = self._checksum(data.slices(0, copy.location.length))
        except (OSError, NotFound) as error:
            self._count(copy, _unreadable(error))
            return
        if copy.checksum not in (None, found):
            self._count(copy, "Its bytes are not those that were received.")
        elif not _is_sound_head(head, copy):
            self._count(copy, "The head of its file is damaged; its own bytes are sound.")
        else:
            self._count(copy, "")

    def _checksum(self, pieces: Iterator[Buffer]) -> int:
        checksum = 0
        for piece in pieces:
            checksum = checksum_of(piece, checksum)
            self.bytes_read += len(piece)
        return checksum

    def _count(self, copy: _Copy, what: str) -> None:
        self.done += 1
        if what and self._is_still_named(copy):
            self.damages.append(Damage(copy.sop_instance_uid, what, copy.location))
        if self.done % 100 == 0 or self.done == self._total:
            self._progress(self.done, max(self.done, self._total))

    def _is_still_named(self, copy: _Copy) -> bool:
        """Whether it was not deleted, or moved, while this ran."""
        with self._database.read() as connection:
            place = copy.location
            for table in (LOCATION, CONFLICT, SET_ASIDE):
                query = select(table.c.offset).where(
                    table.c.container_kind == place.container_kind,
                    table.c.container == place.container,
                    table.c.generation == place.generation,
                    table.c.offset == place.offset,
                )
                if connection.execute(query).first() is not None:
                    return True
        return False


def _unreadable(error: OSError | NotFound) -> str:
    why = error.why if isinstance(error, NotFound) else os.strerror(error.errno or 0)
    return f"It cannot be read. {why}"


def _is_sound_head(head: bytes, copy: _Copy) -> bool:
    """Whether the head of a big object's file is the one that was written.

    It names what was announced; the index may know better what the encoding really is.
    """
    try:
        found, offset = split_part10(head)
        if not copy.file_meta:
            return offset == copy.location.offset
        known, _ = split_part10(_PREAMBLE + copy.file_meta)
    except Invalid:
        return False
    expected = replace(
        known,
        transfer_syntax_uid=(
            found.transfer_syntax_uid
            if {found.transfer_syntax_uid, known.transfer_syntax_uid} <= _MISTAKEN_FOR_EACH_OTHER
            else known.transfer_syntax_uid
        ),
        # Where nothing was announced, the file says nothing.
        media_storage_sop_class_uid=found.media_storage_sop_class_uid
        and known.media_storage_sop_class_uid,
        media_storage_sop_instance_uid=found.media_storage_sop_instance_uid
        and known.media_storage_sop_instance_uid,
    )
    return offset == copy.location.offset and found == expected and head.startswith(_PREAMBLE)


def _places(table: Any) -> list[Any]:
    return [
        table.c.container_kind,
        table.c.container,
        table.c.generation,
        table.c.offset,
        table.c.length,
    ]


def _others(connection: Connection, kind: str, container: str | None) -> list[_Copy]:
    """Return conflicting contents and records that were set aside."""
    copies = []
    for table, checksum in ((CONFLICT, CONFLICT.c.checksum), (SET_ASIDE, None)):
        columns = [table.c.sop_instance_uid, *_places(table)]
        query = select(*columns, *([checksum] if checksum is not None else ())).where(
            table.c.container_kind == kind
        )
        if container is not None:
            query = query.where(table.c.container == container)
        for uid, *rest in connection.execute(query):
            copies.append(_Copy(uid, Location(*rest[:5]), rest[5] if len(rest) > 5 else None))
    return copies
