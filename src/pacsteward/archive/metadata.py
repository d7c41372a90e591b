"""Metadata of instances, series and studies as DICOM JSON, complete and quick.

A header is read by range reads that stop at the pixel data and leave long binary values out; both
stand in the JSON as BulkDataURIs. So an object of two gigabytes costs some kilobytes of memory; it
is read once to be compared with its checksum, as before anything else of it leaves (`blocks.py`).
Of an instance that is damaged only what the index knows is given, and that it is UNAVAILABLE: a
viewer then misses that image, and shows the others.

Making JSON of a header takes milliseconds, and a viewer wants thousands of headers at once. So what
was made for a series is kept in ``DIR/cache/metadata``, one gzip file for each series, and used as
long as the version of the series is the same. After a late arrival only the new instances are made;
what an instance says never changes. The folder may be deleted at any time.

The kept text has relative BulkDataURIs; the public address is put in when it is sent. A quotation
mark inside a JSON text is escaped, so ``"BulkDataURI":"`` can only be the key itself.

References
----------
PS3.18 10.4.1.1.2 (metadata), F.2 (DICOM JSON), F.2.6 (BulkDataURI); PS3.3 C.12.1.1 (0008,3002);
PS3.4 C.6 (Instance Availability).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from isal import igzip

from pacsteward.archive.dialect import Dialect, Postgres, Sql, Sqlite, equal, every
from pacsteward.archive.header_json import HeaderTexts, known_json
from pacsteward.archive.model import Instance, Selection
from pacsteward.archive.read import Reader
from pacsteward.archive.recent import Recent
from pacsteward.base.db import Database
from pacsteward.base.errors import Broken, NotFound
from pacsteward.dicom.dicomjson import dumps

FORMAT: Final = 3
"""Raised when the JSON of a header is made in another way; what was kept is then made anew."""

IN_MEMORY_BYTES: Final = 12 * 1024 * 1024
"""What was used last is kept unpacked, in each process, in bytes: some thousands of instances.

More would be asked for again only by chance, and to unpack it anew takes some milliseconds."""

_INSTANCE_AVAILABILITY: Final = "00080056"
_KEY: Final = b'"BulkDataURI":"'
_SEPARATOR: Final = b",\n"
_LEVEL: Final = 1
_LOCKS: Final = 64
_TOUCH_AFTER_S: Final = 3600.0
_TIDY_ONE_IN: Final = 16
_FOLDERS: Final = 256
"""Keys are digests, so each folder holds its share, and one of them can be tidied by itself."""

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Series:
    """A series whose metadata are wanted."""

    study_instance_uid: str
    series_instance_uid: str
    version: int
    study_version: int


@dataclass(frozen=True, slots=True)
class _Entry:
    """Which instance a line of the kept text is of."""

    sop_instance_uid: str
    checksum: int
    length: int


@dataclass(frozen=True, slots=True)
class _Kept:
    """The metadata of a series.

    Parameters
    ----------
    body
        One JSON object for each instance, in viewing order, with commas between.
    is_whole
        Whether all instances could be read; else it is not kept, since they may be restored.
    """

    version: int
    entries: tuple[_Entry, ...]
    body: bytes
    is_whole: bool = True

    def lines(self) -> Iterator[tuple[_Entry, bytes]]:
        """Give each instance with its JSON."""
        offset = 0
        for entry in self.entries:
            yield entry, self.body[offset : offset + entry.length]
            offset += entry.length + len(_SEPARATOR)


def _cost(kept: _Kept) -> int:
    """Return about how many bytes of memory it takes."""
    return 500 + len(kept.body) + 300 * len(kept.entries)


class MetadataBook:
    """Gives metadata; share one in a process.

    Parameters
    ----------
    folder
        ``DIR/cache/metadata``; made when it is needed.
    inline_limit_bytes
        Binary values up to this size stand in the JSON.
    cache_bytes
        Room for what is kept in `folder`.
    """

    def __init__(
        self,
        database: Database,
        reader: Reader,
        folder: Path,
        *,
        inline_limit_bytes: int,
        cache_bytes: int,
    ) -> None:
        self._database = database
        self._reader = reader
        self._folder = folder
        self._inline_limit_bytes = inline_limit_bytes
        self._cache_bytes = cache_bytes
        self._dialect: Dialect = Sqlite() if database.is_sqlite else Postgres()
        self._recent: Recent[str, _Kept] = Recent(IN_MEMORY_BYTES, _cost)
        # One series is made by one thread at a time; others wait and find it made.
        self._locks = [threading.Lock() for _ in range(_LOCKS)]

    # --- what is asked for -----------------------------------------------------------------------

    def etag(
        self, study_uid: str, series_uid: str | None = None, sop_uid: str | None = None
    ) -> str:
        """Return a word that changes whenever the metadata of these may have changed.

        Raises
        ------
        NotFound
            There is nothing of the kind.
        """
        series = self._series(study_uid, series_uid)
        if sop_uid:
            self._reader.instance(study_uid, series_uid or "", sop_uid)
        return self._etag(series, sop_uid)

    def metadata(
        self,
        study_uid: str,
        series_uid: str | None = None,
        sop_uid: str | None = None,
        *,
        base_url: str,
    ) -> tuple[str, Iterator[bytes]]:
        """Return the etag, and a JSON array of all shown instances in pieces.

        Parameters
        ----------
        base_url
            Public address of the DICOMweb service, which BulkDataURIs begin with.

        Raises
        ------
        NotFound
            There is nothing of the kind.
        """
        series = self._series(study_uid, series_uid)
        etag = self._etag(series, sop_uid)
        if sop_uid:
            instance = self._reader.instance(study_uid, series_uid or "", sop_uid)
            bodies = iter([self._one(instance)])
        else:
            bodies = (self._kept(one).body for one in series)
        return etag, _array(bodies, base_url)

    def prepare(self, study_uid: str) -> None:
        """Make what is not kept of a study; whoever asks for it will be another process.

        Raises
        ------
        NotFound
            There is no such study.
        """
        for series in self._series(study_uid, None):
            self._kept(series, is_remembered=False)

    @staticmethod
    def _etag(series: Sequence[_Series], sop_uid: str | None) -> str:
        parts = [str(FORMAT), sop_uid or "", str(series[0].study_version)]
        for one in series:
            parts += [one.series_instance_uid, str(one.version)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]

    def _series(self, study_uid: str, series_uid: str | None) -> list[_Series]:
        conditions = [
            equal("study.study_instance_uid", study_uid),
            Sql("series.number_of_series_related_instances > 0"),
        ]
        if series_uid:
            conditions.append(equal("series.series_instance_uid", series_uid))
        condition = every(conditions)
        statement = (
            "SELECT study.study_instance_uid, series.series_instance_uid, series.version, "  # noqa: S608
            "study.version FROM series JOIN study ON study.study_key = series.study_key "
            f"WHERE {condition.text} "
            "ORDER BY length(series.series_number), series.series_number, series.series_key"
        )
        rows = self._database.glance(self._dialect.statement(statement), condition.parameters)
        series = [_Series(*row) for row in rows]
        if not series:
            what = f"Series {series_uid}" if series_uid else f"Study {study_uid}"
            raise NotFound(
                f"{what} was not found.",
                why="Nothing of it is stored or shown" + (" in that study." if series_uid else "."),
                remedy="Look for it by a query; it may have been rejected or deleted.",
            )
        return series

    # --- making and keeping ----------------------------------------------------------------------

    def _one(self, instance: Instance) -> bytes:
        """Return the JSON of one instance without making that of its whole series."""
        key = _key(instance.study_instance_uid, instance.series_instance_uid)
        kept = self._recent.get(key)
        if kept is not None:
            for entry, line in kept.lines():
                if (
                    entry.sop_instance_uid == instance.sop_instance_uid
                    and entry.checksum == instance.checksum
                ):
                    return line
        return self._make(instance, HeaderTexts(self._inline_limit_bytes))

    def _kept(self, series: _Series, *, is_remembered: bool = True) -> _Kept:
        """Return the metadata of a series, made now where they were not kept."""
        key = _key(series.study_instance_uid, series.series_instance_uid)
        kept = self._recent.get(key)
        if kept is not None and kept.version == series.version:
            return kept
        with self._locks[hash(key) % _LOCKS]:
            kept = self._recent.get(key) or self._load(key)
            if kept is None or kept.version != series.version:
                kept = self._renew(series, kept)
                if not kept.is_whole:
                    return kept
                self._save(key, kept)
        if is_remembered:
            self._recent.put(key, kept)
        return kept

    def _renew(self, series: _Series, former: _Kept | None) -> _Kept:
        """Make what is new, and take what was made before."""
        known = {
            (entry.sop_instance_uid, entry.checksum): line
            for entry, line in (former.lines() if former else ())
        }
        instances = self._reader.instances(
            Selection(
                study_instance_uids=(series.study_instance_uid,),
                series_instance_uids=(series.series_instance_uid,),
            )
        )
        entries, lines, is_whole = [], [], True
        texts = HeaderTexts(self._inline_limit_bytes)
        for instance in instances:
            line = known.get((instance.sop_instance_uid, instance.checksum))
            if line is None:
                try:
                    line = self._make(instance, texts)
                except NotFound:
                    continue  # deleted since it was listed
                except Broken:
                    line, is_whole = _unavailable(instance), False
            entries.append(_Entry(instance.sop_instance_uid, instance.checksum, len(line)))
            lines.append(line)
        # The version that the instances were listed under, which may be newer than the one asked.
        version = instances[0].series_version if instances else series.version
        return _Kept(version, tuple(entries), _SEPARATOR.join(lines), is_whole)

    def _make(self, instance: Instance, texts: HeaderTexts) -> bytes:
        place = (
            f"studies/{instance.study_instance_uid}/series/{instance.series_instance_uid}"
            f"/instances/{instance.sop_instance_uid}/bulkdata/"
        )
        with self._reader.open(instance) as stored:
            return texts.text(stored, bulk_data_prefix=place)

    def _load(self, key: str) -> _Kept | None:
        path = self._path(key)
        try:
            data = igzip.decompress(path.read_bytes())  # type: ignore[no-untyped-call]
            head, _, body = data.partition(b"\n")
            fields = json.loads(head)
            if fields["format"] != [FORMAT, self._inline_limit_bytes]:
                return None
            entries = tuple(_Entry(*entry) for entry in fields["entries"])
            expected = sum(entry.length for entry in entries)
            expected += len(_SEPARATOR) * max(len(entries) - 1, 0)
            if len(body) != expected:
                return None
            if time.time() - path.stat().st_mtime > _TOUCH_AFTER_S:
                os.utime(path)
        except FileNotFoundError:
            return None
        except (OSError, EOFError, ValueError, KeyError, TypeError, igzip.BadGzipFile) as error:
            # Half written when the machine stopped, or damaged: it is made anew.
            _log.info("Kept metadata could not be used: %s", type(error).__name__)
            return None
        return _Kept(fields["version"], entries, body)

    def _save(self, key: str, kept: _Kept) -> None:
        """Keep metadata; where that is not possible they are made again next time."""
        head = {
            "format": [FORMAT, self._inline_limit_bytes],
            "version": kept.version,
            "entries": [
                [entry.sop_instance_uid, entry.checksum, entry.length] for entry in kept.entries
            ],
        }
        text = json.dumps(head, separators=(",", ":")).encode() + b"\n" + kept.body
        path = self._path(key)
        temporary = path.with_name(f".{secrets.token_hex(8)}")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary.write_bytes(igzip.compress(text, _LEVEL))
            temporary.rename(path)
        except OSError as error:
            _log.warning("Metadata could not be kept: %s", os.strerror(error.errno or 0))
            temporary.unlink(missing_ok=True)
            return
        if random.randrange(_TIDY_ONE_IN) == 0:  # noqa: S311
            tidy(path.parent, self._cache_bytes // _FOLDERS)

    def _path(self, key: str) -> Path:
        # A digest, so that no UID can make a path.
        return self._folder / key[:2] / f"{key[2:]}.gz"


def _unavailable(instance: Instance) -> bytes:
    """Return what stands for an instance whose bytes are damaged: it is missed, not forgotten."""
    _log.error("Instance %s is damaged; its metadata were not given.", instance.sop_instance_uid)
    known = known_json(instance) | {_INSTANCE_AVAILABILITY: {"vr": "CS", "Value": ["UNAVAILABLE"]}}
    return dumps(dict(sorted(known.items())))


def tidy(folder: Path, size_bytes: int) -> int:
    """Remove the least recently used files of a folder until the others fit; return how many.

    The newest one stays, however large it is, since somebody waits for it; unless there is to be
    no room at all.
    """
    files = []
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                status = entry.stat()
                files.append((status.st_mtime_ns, status.st_size, entry.path))
    files.sort()
    surplus = sum(size for _, size, _ in files) - size_bytes
    removed = 0
    for _, size, path in files[:-1] if size_bytes else files:
        if surplus <= 0:
            break
        with suppress(FileNotFoundError):
            os.unlink(path)
        surplus -= size
        removed += 1
    return removed


def _key(study_uid: str, series_uid: str) -> str:
    return hashlib.sha256(f"{study_uid}\n{series_uid}".encode()).hexdigest()[:40]


def _array(bodies: Iterator[bytes], base_url: str) -> Iterator[bytes]:
    """Join bodies to a JSON array with absolute BulkDataURIs."""
    address = json.dumps(base_url.rstrip("/") + "/", ensure_ascii=False)[1:-1].encode()
    opening = b"["
    for body in bodies:
        if body:
            yield opening
            yield body.replace(_KEY, _KEY + address)
            opening = _SEPARATOR
    yield b"]" if opening == _SEPARATOR else b"[]"
