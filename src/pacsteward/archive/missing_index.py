"""Whether the index is one of this folder at all, before it is asked.

An index that is gone, or half made anew, knows of few images or none. What is asked of it then
would be answered with "none", and checked with "all is well".
"""

from __future__ import annotations

from pathlib import Path

from pacsteward.archive.folder import refuse_half_made_index
from pacsteward.archive.ledger import read_ledger
from pacsteward.archive.segment import find_segments, reading, walk
from pacsteward.archive.storage.local import LocalObjects
from pacsteward.archive.tables import LANDING_POSITION
from pacsteward.base.db import Database
from pacsteward.base.errors import Broken


def refuse_missing_index(data_folder: Path, database: Database) -> None:
    """Return if the index knows of the log; nobody may be keeping the archive meanwhile.

    Raises
    ------
    Broken
        Something was stored, and the index never heard of this log.
    Conflict
        A rebuild was interrupted.
    """
    refuse_half_made_index(data_folder)
    if not database.holds_any(LANDING_POSITION) and holds_images(data_folder):
        raise Broken(
            f"The index does not know of the images in {data_folder}.",
            why="It is new, and there are images that were stored before.",
            remedy="Put the index of the backup in its place. Without a backup run `pacsteward "
            "archive rebuild`, which makes it anew from the images.",
        )


def holds_images(data_folder: Path) -> bool:
    """Say whether anything was ever stored in this folder, as far as it can tell by itself.

    Raises
    ------
    Broken
        The ledger is damaged.
    """
    return (
        _has_records(data_folder / "landing")
        or bool(read_ledger(data_folder / "ledger"))
        or next(LocalObjects(data_folder).containers(), None) is not None
    )


def _has_records(landing_folder: Path) -> bool:
    if not landing_folder.is_dir():
        return False
    segments, damaged = find_segments(landing_folder)
    if damaged:
        # What a segment without a sound head holds nobody can tell. It was not made empty.
        return True
    for segment in segments:
        with reading(segment.path) as file:
            if next(walk(file, segment.head), None) is not None:
                return True
    return False
