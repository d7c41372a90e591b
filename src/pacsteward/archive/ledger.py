"""The ledger: what was decided about stored instances, in a journal beside their bytes.

Rejections, restorations and deletions are appended and synced here before the index changes. So
the index can always be made again from the landing log, the objects and the ledger, and never
undoes a rejection or brings back what was deleted.

Format 1. The files ``ledger/000000000001.jsonl`` hold one JSON object a line. The first line of
each says ``format``, ``version`` and ``first_sequence``; each further line is one entry. The last
member of every line is ``checksum``: crc32, in hexadecimal, of the line's text without that member.
Entries count up by one through all files; only where the ledger lost its end, and the index knows
how far it had come, are the lost numbers left out (`Ledger.open`). An entry belongs to the ledger
only when its sequence is less than the first sequence of every later file; another file is begun
after a failed write, which cuts off whatever the failure left behind (`Ledger.settle`).

What a process wrote before it ended may stand in the ledger without being on the disk, and that its
sync failed the next process cannot tell: a second one would succeed all the same. So entries that
no index has applied yet are written once more, over themselves, before anybody acts on them.

``landed_sequence`` ties the ledger to the landing log: an entry is about what had landed until
then. An instance that is stored anew after its deletion landed later, and stays.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from isal.isal_zlib import crc32
from sqlalchemy import Connection

from pacsteward.archive import disk
from pacsteward.archive.model import Location
from pacsteward.archive.segment import newer_format
from pacsteward.base.errors import Broken

VERSION: Final = 1

_NAME: Final = re.compile(r"([0-9]{12})\.jsonl")
_CHECKSUM: Final = re.compile(rb',"checksum":"([0-9a-f]{8})"\}\Z')
_ENDLESS: Final = 1 << 63
_NOT_KEPT: Final = "The change was not made, because the ledger could not be written."

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One decision.

    Parameters
    ----------
    landed_sequence
        The entry is about what had landed until then.
    kind
        ``"rejected"``, ``"restored"`` or ``"deleted"``.
    details
        ``actor_kind`` and ``address`` of who decided; of a rejection, also its ``code``.
    locations
        Of a deletion: the bytes that are removed with it.
    """

    sequence: int
    landed_sequence: int
    at: datetime
    kind: str
    actor: str
    sop_instance_uids: tuple[str, ...]
    details: Mapping[str, str] = field(default_factory=dict)
    locations: tuple[Location, ...] = ()


Tell = Callable[[Connection, LedgerEntry], None]
"""Adds facts and audit entries of a decision to the transaction that carries it out; called before
the index is changed, since after a deletion it no longer knows what was deleted."""


class Ledger:
    """The ledger of one data folder, open for appending. Only the keeper has one.

    Parameters
    ----------
    folder
        ``DIR/ledger``.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._offset = 0
        self._last_number = 0
        self._last_sequence = 0
        self._is_doubtful = False

    def open(self, known_sequence: int = 0) -> list[LedgerEntry]:
        """Read all entries, durable when this returns, and get ready to append.

        Parameters
        ----------
        known_sequence
            How far the index has applied it. Where the ledger has lost entries, new ones must not
            bear their sequences: they would count as applied already.

        Raises
        ------
        Broken
            An entry other than the last, which may be half written, cannot be read.
        OSError
            The disk failed.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        files = _files(self._folder)
        texts = [path.read_bytes() for path in files]
        entries = list(_entries(files, texts))
        last_sequence = entries[-1].sequence if entries else 0
        self._last_sequence = max(last_sequence, known_sequence)
        if last_sequence < known_sequence:
            _log.warning(
                "The ledger has lost its decisions %d to %d; a rebuild would not repeat them.",
                last_sequence + 1,
                known_sequence,
            )
        for path, text, before in zip(files, texts, _limits(texts), strict=True):
            # The head of the last one cuts off what could not be kept, with or without entries.
            if last_sequence > known_sequence or path == files[-1]:
                _write_again(path, text, known_sequence, before=before)
        if files:
            self._last_number = int(files[-1].stem)
            text = texts[-1]
            is_next = _first_sequence(text) <= last_sequence + 1 == self._last_sequence + 1
            if is_next and _ends_whole(text):
                self._descriptor = disk.open_file(files[-1], os.O_RDWR)
                self._offset = len(text)
                # A killed process may have made the file without having synced it, or its name.
                disk.sync(self._descriptor)
            disk.sync_folder(self._folder)
        return entries

    def append(
        self,
        *,
        landed_sequence: int,
        at: datetime,
        kind: str,
        actor: str,
        sop_instance_uids: Sequence[str],
        details: Mapping[str, str] | None = None,
        locations: Sequence[Location] = (),
    ) -> LedgerEntry:
        """Write one entry; when this returns, it cannot be lost.

        Raises
        ------
        Exhausted, Unavailable
            It was not kept; nothing may be changed.
        """
        with self._lock, disk.speaking(_NOT_KEPT):
            entry = LedgerEntry(
                self._last_sequence + 1,
                landed_sequence,
                at,
                kind,
                actor,
                tuple(sop_instance_uids),
                dict(details or {}),
                tuple(locations),
            )
            if self._descriptor is None:
                self._begin_file()
            assert self._descriptor is not None
            try:
                line = _line(_fields(entry))
                end = disk.write_all(self._descriptor, [line], self._offset)
                disk.sync(self._descriptor)
            except BaseException:
                self._close()
                self._is_doubtful = True
                raise
            self._offset = end
            self._last_sequence = entry.sequence
            return entry

    def settle(self) -> None:
        """Return once an entry that could not be kept cannot come to light at the next start.

        Its line may be on the disk all the same. Until then nobody may rely on what the entry
        would change.

        Raises
        ------
        Exhausted, Unavailable
            The disk still fails.
        """
        if self._is_doubtful:
            with self._lock, disk.speaking(_NOT_KEPT):
                self._begin_file()

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._close()

    def _begin_file(self) -> None:
        self._last_number += 1
        path = self._folder / f"{self._last_number:012d}.jsonl"
        head = {
            "format": "pacsteward ledger",
            "version": VERSION,
            "first_sequence": self._last_sequence + 1,
        }
        descriptor = disk.open_file(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            self._offset = disk.write_all(descriptor, [_line(head)], 0)
            disk.sync(descriptor)
            disk.sync_folder(self._folder)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        self._is_doubtful = False

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def read_ledger(folder: Path) -> list[LedgerEntry]:
    """Return all entries, without opening the ledger for writing.

    Raises
    ------
    Broken
        An entry other than the last cannot be read.
    """
    files = _files(folder) if folder.is_dir() else []
    return list(_entries(files, [path.read_bytes() for path in files]))


def landed_before(entries: Sequence[LedgerEntry]) -> int:
    """Return up to which sequence the log had surely been synced when these were decided."""
    return max((entry.landed_sequence for entry in entries), default=0)


def deleted_until(entries: Iterable[LedgerEntry]) -> dict[str, int]:
    """Return, by SOP Instance UID, up to which sequence of the log all under it was deleted."""
    found: dict[str, int] = {}
    for entry in entries:
        if entry.kind == "deleted":
            found |= dict.fromkeys(entry.sop_instance_uids, entry.landed_sequence)
    return found


def _files(folder: Path) -> list[Path]:
    return sorted(folder / name for name in os.listdir(folder) if _NAME.fullmatch(name))


def _write_again(path: Path, text: bytes, known_sequence: int, *, before: int) -> None:
    """Write the entries that are not applied yet over themselves, and sync them.

    The head, too, where no entry of the file is applied: nothing proves that it is on the disk.
    """
    head, newline, rest = text.partition(b"\n")
    if not newline or _checked(head) is None:
        return
    begin, end = 0, len(head) + len(newline)
    for line in rest.splitlines(keepends=True):
        body = _checked(line.removesuffix(b"\n"))
        sequence = json.loads(body)["sequence"] if body is not None else before
        if sequence >= before:
            break
        end += len(line)
        if sequence <= known_sequence:
            begin = end
    if begin < end:
        descriptor = disk.open_file(path, os.O_RDWR)
        try:
            disk.write_all(descriptor, [text[begin:end]], begin)
            disk.sync(descriptor)
        finally:
            os.close(descriptor)


def _limits(texts: Sequence[bytes]) -> list[int]:
    """Return for each file from which sequence on later ones cut off what is in it."""
    limits, limit = [], _ENDLESS
    for text in reversed(texts):
        limits.append(limit)
        # The next file may be one that was never whole, so each of the later ones cuts off.
        limit = min(limit, _first_sequence(text))
    return limits[::-1]


def _entries(files: Sequence[Path], texts: Sequence[bytes]) -> Iterator[LedgerEntry]:
    for path, text, before in zip(files, texts, _limits(texts), strict=True):
        for number, fields in _lines(path, text):
            if number == 1:
                continue
            entry = _entry(fields)
            if entry.sequence < before:
                yield entry


def _lines(path: Path, text: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    lines = text.split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        body = _checked(line)
        if body is None:
            if number >= len(lines) - 1:
                # Half written when the machine stopped, so nobody was told that it was kept.
                return
            raise _damaged(path, number, "Its checksum does not fit.")
        fields = json.loads(body)
        if (number == 1) != ("first_sequence" in fields):
            raise _damaged(path, number, "It is not the line that belongs there.")
        if number == 1 and fields.get("version", 0) > VERSION:
            raise newer_format("ledger", fields["version"], VERSION)
        yield number, fields


def _damaged(path: Path, number: int, why: str) -> Broken:
    return Broken(
        f"The ledger is damaged: {path.name}, line {number}.",
        why=why,
        remedy="Restore the folder `ledger` from the backup.",
    )


def _ends_whole(text: bytes) -> bool:
    """Whether a file may be written on.

    Not behind a line that was half written, even if its end is there: it would stand in the middle
    then, where a line that does not fit its checksum is damage.
    """
    last = text.removesuffix(b"\n").rpartition(b"\n")[2]
    return text.endswith(b"\n") and _checked(last) is not None


def _first_sequence(text: bytes) -> int:
    """Return what the head line says.

    A file whose head was never whole holds no entries, so it cuts nothing off the one before.
    """
    head, newline, _ = text.partition(b"\n")
    body = _checked(head)
    if not newline or body is None:
        return _ENDLESS
    return int(json.loads(body).get("first_sequence", _ENDLESS))


def _checked(line: bytes) -> bytes | None:
    """Return a line without its checksum; None if it does not fit."""
    match = _CHECKSUM.search(line)
    if match is None:
        return None
    body = line[: match.start()] + b"}"
    return body if int(match[1], 16) == crc32(body) else None


def _line(fields: Mapping[str, Any]) -> bytes:
    body = json.dumps(fields, separators=(",", ":")).encode("ascii")
    return body[:-1] + f',"checksum":"{crc32(body):08x}"}}\n'.encode("ascii")


def _fields(entry: LedgerEntry) -> dict[str, Any]:
    return {
        "sequence": entry.sequence,
        "landed_sequence": entry.landed_sequence,
        "at": entry.at.isoformat(),
        "kind": entry.kind,
        "actor": entry.actor,
        "sop_instance_uids": list(entry.sop_instance_uids),
        "details": dict(entry.details),
        "locations": [
            [place.container_kind, place.container, place.generation, place.offset, place.length]
            for place in entry.locations
        ],
    }


def _entry(fields: Mapping[str, Any]) -> LedgerEntry:
    return LedgerEntry(
        sequence=fields["sequence"],
        landed_sequence=fields["landed_sequence"],
        at=datetime.fromisoformat(fields["at"]),
        kind=fields["kind"],
        actor=fields["actor"],
        sop_instance_uids=tuple(fields["sop_instance_uids"]),
        details=fields["details"],
        locations=tuple(Location(*place) for place in fields["locations"]),
    )
