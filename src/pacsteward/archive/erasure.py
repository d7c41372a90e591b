"""Bytes that a deletion of the ledger gives up, removed from the disk.

The file of a big object goes; in a segment of the log the data set is erased, and whoever prepares
segments looks whether anything in it is still needed (`spares.py`). To erase again changes nothing.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path

from pacsteward.archive import disk
from pacsteward.archive.containers import container_path
from pacsteward.archive.model import Location
from pacsteward.archive.segment import read_generation
from pacsteward.archive.storage.local import LocalObjects
from pacsteward.base.errors import PacstewardError

_log = logging.getLogger(__name__)


def erase_all(data_folder: Path, objects: LocalObjects, locations: Iterable[Location]) -> set[str]:
    """Remove what lies at these places; what cannot be removed is said in the log.

    Returns
    -------
    set of str
        The segments of the landing log in which something was erased.
    """
    segments: set[str] = set()
    for location in locations:
        try:
            if location.container_kind == "object":
                objects.remove(location.container)
            elif location.container_kind == "landing":
                _erase(data_folder, location)
                segments.add(location.container)
        except (OSError, PacstewardError) as error:
            _log.warning(
                "Deleted bytes in %s %s could not be removed. %s",
                location.container_kind,
                location.container,
                error,
            )
    return segments


def _erase(data_folder: Path, location: Location) -> None:
    try:
        descriptor = disk.open_file(container_path(data_folder, location), os.O_RDWR)
    except FileNotFoundError:
        return
    try:
        # The segment may have been used anew since.
        if read_generation(descriptor) == location.generation:
            disk.erase(descriptor, location.offset, location.length)
    finally:
        os.close(descriptor)
