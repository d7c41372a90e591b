"""Instances and their bytes, as they lie wherever they lie.

`Reader.instances` and `Reader.instance` say what is stored and where; `Reader.open` gives a
`StoredObject`, whose bytes can be read whole, in chunks or in ranges. While it is open the bytes
are leased: nobody uses their place anew.

No flipped bit leaves. Whatever is read, whole or a part, is compared with the checksum that was
taken on arrival before its first byte is given away (`blocks.py` says how a part is). `verify` does
the same for what nobody asks for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from pacsteward.archive.at_once import AT_ONCE_BYTES, AtOnceReader, Enclosed, file_head
from pacsteward.archive.blocks import BlockChecksums, checked_range
from pacsteward.archive.containers import opened
from pacsteward.archive.dialect import (
    Dialect,
    Postgres,
    Sql,
    Sqlite,
    every,
    is_storable,
    within,
)
from pacsteward.archive.doubtful import UNKNOWN_CHECKSUM, instance_set_aside
from pacsteward.archive.model import Instance, Location, Selection
from pacsteward.archive.record import checksum_of
from pacsteward.base.db import Database
from pacsteward.base.errors import Broken, NotFound, Unavailable, WouldWait
from pacsteward.dicom.part10 import FileMeta, split_part10

KEPT_WHOLE_BYTES: Final = 1024 * 1024
"""An object up to this size is read whole whatever part of it is wanted, and kept while open."""

CHECKED_AHEAD_BYTES: Final = 64 * 1024 * 1024
"""Objects up to this size are read twice rather than found to be damaged in mid-answer."""

CHUNK_BYTES: Final = 1024 * 1024


# --- what is stored ------------------------------------------------------------------------------

_COLUMNS: Final = (
    "instance.instance_key, instance.sop_instance_uid, instance.sop_class_uid, "
    "series.series_instance_uid, study.study_instance_uid, instance.transfer_syntax_uid, "
    "instance.instance_number, instance.number_of_frames, instance.rows, instance.columns, "
    "series.modality, study.patient_id, study.issuer_of_patient_id, instance.has_pixel_data, "
    "instance.size_bytes, instance.checksum, instance.received_at, series.version, "
    "instance.rejected_for, location.file_meta, location.container_kind, location.container, "
    'location.generation, location."offset", location.length'
)
_FROM: Final = (
    "instance JOIN series ON series.series_key = instance.series_key "
    "JOIN study ON study.study_key = series.study_key "
    "JOIN location ON location.instance_key = instance.instance_key AND location.copy_number = 0"
)
_VIEWING_ORDER: Final = (
    "study.study_key, length(series.series_number), series.series_number, series.series_key, "
    "instance.instance_order, instance.sop_instance_uid"
)
_NOT_WHAT_CAME: Final = "Its bytes are not those that were received."
_SHOWN: Final = Sql("instance.rejected_for = ''")


class Reader:
    """Reads instances of one data folder.

    Parameters
    ----------
    database
        That holds the index.
    data_folder
        ``DIR``.
    """

    def __init__(self, database: Database, data_folder: Path) -> None:
        self._database = database
        self._data_folder = data_folder
        self._dialect: Dialect = Sqlite() if database.is_sqlite else Postgres()
        # By the SOP Instance UID alone: a planner that was given the others too may begin there.
        self._one = self._dialect.statement(
            f"SELECT {_COLUMNS} FROM {_FROM} "  # noqa: S608
            f"WHERE instance.sop_instance_uid = ? AND {_SHOWN.text} ORDER BY {_VIEWING_ORDER}"
        )
        self._blocks = BlockChecksums()
        self.at_once = AtOnceReader(data_folder)

    def instances(self, selection: Selection, *, with_rejected: bool = False) -> list[Instance]:
        """Return what a selection names, in viewing order.

        That is by study, series number, instance number and UID.
        """
        conditions = within(self._dialect, selection)
        if not with_rejected:
            conditions.append(_SHOWN)
        return self._select(every(conditions))

    def instance(self, study_uid: str, series_uid: str, sop_uid: str) -> Instance:
        """Return one instance; an empty study or series UID is any.

        One that was acknowledged and could not be indexed is found by its UID alone, since its
        study is not known.

        Raises
        ------
        NotFound
            There is none, or it is rejected.
        """
        if indexed := self.indexed_instance(study_uid, series_uid, sop_uid):
            return indexed
        if aside := instance_set_aside(self._database, sop_uid):
            return aside
        raise NotFound(
            f"Instance {sop_uid} was not found.",
            why="Nothing is stored under this UID" + (" there." if study_uid else "."),
            remedy="Look for it by a query; it may have been rejected or deleted.",
        )

    def indexed_instance(
        self, study_uid: str, series_uid: str, sop_uid: str, *, may_wait: bool = True
    ) -> Instance | None:
        """Return one shown instance of the index; an empty study or series UID is any.

        Raises
        ------
        WouldWait
            Whoever asks may not wait, and the database is not on this machine or does not answer.
        """
        if not is_storable(sop_uid):
            return None
        ask = self._database.glance if may_wait else self._database.at_once
        for row in ask(self._one, (sop_uid,)):
            instance = _instance(row)
            if study_uid in ("", instance.study_instance_uid) and (
                series_uid in ("", instance.series_instance_uid)
            ):
                return instance
        return None

    def representative(self, key_column: str, key: int) -> Instance | None:
        """Return the first shown instance below a row, None where there is none left.

        Parameters
        ----------
        key_column
            Such as ``study.study_key``.
        """
        condition = every([Sql(f"{key_column} = ?", (key,)), _SHOWN])
        found = self._select(condition, limit=1)
        return found[0] if found else None

    def _select(self, condition: Sql, *, limit: int | None = None) -> list[Instance]:
        statement = (
            f"SELECT {_COLUMNS} FROM {_FROM} WHERE {condition.text} ORDER BY {_VIEWING_ORDER}"  # noqa: S608
        )
        if limit is not None:
            statement += f" LIMIT {int(limit)}"
        rows = self._database.glance(self._dialect.statement(statement), condition.parameters)
        return [_instance(row) for row in rows]

    # --- their bytes -----------------------------------------------------------------------------

    @contextmanager
    def open(self, instance: Instance) -> Iterator[StoredObject]:
        """Give the bytes of an instance while the block lasts.

        Raises
        ------
        NotFound
            It was removed meanwhile, or its file is gone.
        Unavailable
            The disk failed.
        """
        with ExitStack() as lease:
            descriptor, current = self._lease(lease, instance)
            yield StoredObject(current, descriptor, self._blocks)

    def view_at_once(self, instance: Instance, offset: int, length: int) -> memoryview:
        """Return what `StoredObject.view` does, opening the instance for that alone.

        Raises
        ------
        NotFound, Broken
            It is not where the caller found it any more, or not what was received.
        WouldWait
            See `open_at_once`.
        """
        if instance.location.length <= KEPT_WHOLE_BYTES:
            whole = self.at_once.joined((Enclosed(b"", instance, b""),))
            return whole[offset : offset + length]
        with self.open_at_once(instance) as stored:
            return stored.view(offset, length)

    @contextmanager
    def open_at_once(self, instance: Instance) -> Iterator[StoredObject]:
        """Do the same without ever waiting, for an event loop.

        Raises
        ------
        NotFound
            It is not where the caller found it any more.
        WouldWait
            Its place is locked; and so says each read of what the system has not in memory.
        """
        with opened(self._data_folder, instance.location, may_wait=False) as descriptor:
            yield StoredObject(instance, descriptor, self._blocks, may_wait=False)

    def _lease(self, lease: ExitStack, instance: Instance) -> tuple[int, Instance]:
        try:
            return lease.enter_context(opened(self._data_folder, instance.location)), instance
        except NotFound:
            # It may have moved since the caller looked it up.
            current = self._again(instance)
            if current.location == instance.location:
                raise
            return lease.enter_context(opened(self._data_folder, current.location)), current

    def _again(self, instance: Instance) -> Instance:
        # By what it is, not by its key alone: SQLite gives the key of what was deleted to the next.
        condition = Sql(
            "instance.instance_key = ? AND instance.sop_instance_uid = ? AND instance.checksum = ?",
            (instance.instance_key, instance.sop_instance_uid, instance.checksum),
        )
        found = self._select(condition)
        if not found:
            raise NotFound(
                f"Instance {instance.sop_instance_uid} is no longer there.",
                why="It was deleted meanwhile.",
            )
        return found[0]


def _instance(row: Sequence[Any]) -> Instance:
    received_at = row[16]
    if isinstance(received_at, str):
        received_at = datetime.fromisoformat(received_at)
    return Instance(
        instance_key=row[0],
        sop_instance_uid=row[1],
        sop_class_uid=row[2],
        series_instance_uid=row[3],
        study_instance_uid=row[4],
        transfer_syntax_uid=row[5],
        instance_number=row[6],
        number_of_frames=row[7],
        rows=row[8],
        columns=row[9],
        modality=row[10],
        patient_id=row[11],
        issuer_of_patient_id=row[12],
        has_pixel_data=bool(row[13]),
        size_bytes=row[14],
        checksum=row[15],
        received_at=received_at,
        series_version=row[17],
        rejected_for=row[18],
        file_meta=bytes(row[19]),
        location=Location(row[20], row[21], row[22], row[23], row[24]),
    )


class StoredObject:
    """The bytes of one instance, open. Made by `Reader.open` and `Reader.open_at_once`."""

    def __init__(
        self, instance: Instance, descriptor: int, blocks: BlockChecksums, *, may_wait: bool = True
    ) -> None:
        self.instance = instance
        self._descriptor = descriptor
        self._blocks = blocks
        self._may_wait = may_wait
        self._at_once_left = AT_ONCE_BYTES
        self._kept: bytes | bytearray | None = None
        self._location = instance.location

    @property
    def size(self) -> int:
        """Length of the data set, in bytes."""
        return self._location.length

    @property
    def transfer_syntax_uid(self) -> str:
        """How the data set is encoded."""
        return self.instance.transfer_syntax_uid

    @property
    def file_meta(self) -> FileMeta:
        """The file meta information that came, or was made, with it (PS3.10 7.1)."""
        return split_part10(self.head())[0]

    def head(self) -> bytes:
        """Return what stands before the data set in a file: preamble, prefix, file meta."""
        return file_head(self.instance)

    def read(self, offset: int, length: int) -> bytes:
        """Return a range of the data set, shorter only at its end; checked.

        Raises
        ------
        Broken
            It is not what was received.
        Unavailable
            The disk failed.
        """
        length = min(length, self.size - offset)
        if offset < 0 or length <= 0:
            return b""
        if length == self.size or self.size <= KEPT_WHOLE_BYTES:
            return _part_of(self._whole(), offset, length)
        return self._part(offset, length)

    def view(self, offset: int, length: int) -> memoryview:
        """Return what `read` does, of a small object without a copy."""
        length = min(length, self.size - offset)
        if offset < 0 or length <= 0:
            return memoryview(b"")
        if length == self.size or self.size <= KEPT_WHOLE_BYTES:
            return memoryview(self._whole())[offset : offset + length]
        return memoryview(self._part(offset, length))

    def data_set(self) -> bytes:
        """Return the whole data set, checked; for objects that are known to be small.

        Raises
        ------
        Broken
            It is not what was received.
        """
        return bytes(self._whole())

    def _whole(self) -> bytes | bytearray:
        if self._kept is not None:
            return self._kept
        data = self._raw(0, self.size)
        self._compare(checksum_of(data))
        if self.size <= KEPT_WHOLE_BYTES:
            self._kept = data
        return data

    def _part(self, offset: int, length: int) -> bytes:
        found = self._location, self.instance.checksum
        if not self._may_wait and not self._blocks.has(*found):
            raise WouldWait  # the first read of a part goes through the whole object
        blocks = self._blocks.of(*found, self._raw, self._compare)
        data = checked_range(blocks, self._raw, offset, length)
        if data is None:
            raise self._damaged(_NOT_WHAT_CAME)
        return data

    def chunks(self, size: int = CHUNK_BYTES) -> Iterator[memoryview]:
        """Give the whole data set piece by piece, checked.

        Raises
        ------
        Broken
            It is not what was received. Before the first piece; a very large object of which
            something was read before may also break off in the middle.
        """
        if CHUNK_BYTES < self.size <= CHECKED_AHEAD_BYTES:
            self.check()
        for offset in range(0, self.size, size):
            yield self.view(offset, size)

    def check(self) -> None:
        """Return when the stored bytes are those that were received.

        For whoever must know before the first of many ranges.

        Raises
        ------
        Broken
            They are not.
        """
        self._blocks.renew(self._location, self.instance.checksum, self._raw, self._compare)

    def _raw(self, offset: int, length: int) -> bytes | bytearray:
        """Return a range as it lies there, shorter only at the end of the data set."""
        length = min(length, self.size - offset)
        if not self._may_wait:
            return self._from_memory(length, self._location.offset + offset)
        data = self._pread(length, self._location.offset + offset)
        while len(data) < length:
            more = self._pread(length - len(data), self._location.offset + offset + len(data))
            if not more:
                raise self._damaged("Its file ends before it does.")
            data += more
        return data

    def _from_memory(self, length: int, offset: int) -> bytearray:
        """Read what the system has in its page cache, and nothing that it would have to fetch."""
        self._at_once_left -= length
        if self._at_once_left < 0:
            raise WouldWait
        data = bytearray(length)
        try:
            found = os.preadv(self._descriptor, [data], offset, os.RWF_NOWAIT)
        except OSError:
            # Not in memory, not told by this file system, or the disk failed: a thread will see.
            raise WouldWait from None
        if found < length:
            raise WouldWait
        return data

    def _pread(self, length: int, offset: int) -> bytes:
        try:
            return os.pread(self._descriptor, length, offset)
        except OSError as error:
            raise Unavailable(
                f"Instance {self.instance.sop_instance_uid} could not be read.",
                why=f"The disk of the archive failed: {os.strerror(error.errno or 0)}.",
                remedy="See the system's log for the disk.",
            ) from error

    def _compare(self, checksum: int) -> None:
        if checksum != self.instance.checksum != UNKNOWN_CHECKSUM:
            raise self._damaged(_NOT_WHAT_CAME)

    def _damaged(self, why: str) -> Broken:
        return Broken(
            f"Instance {self.instance.sop_instance_uid} is damaged and was not delivered.",
            why=f"{why} It lies in {self._location.container_kind} {self._location.container}.",
            remedy="Run `pacsteward archive verify` and restore what it names from the backup.",
        )


def _part_of(whole: bytes | bytearray, offset: int, length: int) -> bytes:
    """Return a part with one copy; none where it is all of it."""
    part = whole[offset : offset + length] if isinstance(whole, bytes) else whole
    return part if isinstance(part, bytes) else bytes(memoryview(part)[offset : offset + length])
