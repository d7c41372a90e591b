"""Files of big objects that nothing names: room that is lost until somebody removes them.

A big object gets its place right before its record is written. A kill in between, or a disk that
fails and then cannot undo it either, leaves the file there; so does a deletion whose file could not
be removed. What the log names and the index has not come to yet is not among them, nor what has
been written just now: its record may be on its way.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from sqlalchemy import func, select

from pacsteward.archive.counters import chunks
from pacsteward.archive.record import OBJECT
from pacsteward.archive.segment import Segment, find_segments, reading, walk
from pacsteward.archive.storage.local import LocalObjects, object_path
from pacsteward.archive.tables import CONFLICT, LANDING_POSITION, LOCATION, SET_ASIDE
from pacsteward.base.db import Database

_STILL_COMING_S: Final = 3600.0


def unnamed_files(data_folder: Path, database: Database) -> list[str]:
    """List them by their path below the data folder.

    Parameters
    ----------
    data_folder
        ``DIR``.
    """
    quiet_since = time.time() - _STILL_COMING_S
    containers = LocalObjects(data_folder).containers()
    unnamed = [name for page in chunks(containers) for name in _not_in_index(database, page)]
    expected = _not_indexed_yet(data_folder, database) if unnamed else set()
    found = []
    # Once more: the index may have come to some of them between the two questions.
    for container in [name for page in chunks(unnamed) for name in _not_in_index(database, page)]:
        path = object_path(data_folder, container)
        with suppress(FileNotFoundError):
            if container not in expected and path.stat().st_mtime < quiet_since:
                found.append(str(path.relative_to(data_folder)))
    return found


def _not_in_index(database: Database, containers: Sequence[str]) -> list[str]:
    named: set[str] = set()
    with database.read() as connection:
        for table in (LOCATION, CONFLICT, SET_ASIDE):
            query = select(table.c.container).where(
                table.c.container_kind == "object", table.c.container.in_(containers)
            )
            named.update(connection.execute(query).scalars())
    return [name for name in containers if name not in named]


def _not_indexed_yet(data_folder: Path, database: Database) -> set[str]:
    """Return the objects of the records that the index has not come to."""
    with database.read() as connection:
        # Of several nodes that of the slowest: rather one too many that is expected.
        position = connection.execute(select(func.min(LANDING_POSITION.c.sequence))).scalar() or 0
    found: set[str] = set()
    for segment in find_segments(data_folder / "landing")[0]:
        before = segment.before_sequence
        if before is None or before > position + 1:
            found.update(_objects_of(segment, position))
    return found


def _objects_of(segment: Segment, after_sequence: int) -> Iterator[str]:
    # A segment may be used anew at any moment; then nothing of it was wanted.
    with suppress(FileNotFoundError), reading(segment.path) as file:
        for record in walk(file, segment.head):
            if record.kind == OBJECT and record.sequence > after_sequence:
                yield record.description.object_container
