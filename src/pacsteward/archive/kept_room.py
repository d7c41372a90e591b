"""Room on the disk that is kept for the index.

The reserve keeps senders from filling the disk, not other programs. Should one of them take the
last byte while something has landed that the index does not have yet, the index could not be
written, and since a reader never sees less than was acknowledged, every search would wait. So a
file that holds nothing lies in the data folder; it goes when the index finds the disk full, and is
made again with the first batch after there is room. While it is missing, for whatever reason, as
much is kept from senders.

The threads that use this follow each other: the one that starts the keeper, then the indexer's.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pacsteward.archive import disk
from pacsteward.archive.model import Space
from pacsteward.base.disk_failure import FULL
from pacsteward.base.errors import PacstewardError

KEPT_BYTES: Final = 16 << 20
"""Enough for the rows of some thousand instances, and for the same pages in the write-ahead log."""

_RETRY_S: Final = 60.0

NAME: Final = "kept-for-the-index"

_log = logging.getLogger(__name__)


class KeptRoom:
    """Keeps some mebibytes that nobody else may use.

    Parameters
    ----------
    room
        Tells the room on the disk.
    has_room_for
        Whether the disk has room for so many bytes more.
    hold_back
        Keeps so much from senders besides the reserve.
    """

    def __init__(
        self,
        data_folder: Path,
        *,
        room: Callable[[], Space],
        has_room_for: Callable[[int], bool],
        hold_back: Callable[[int], None],
    ) -> None:
        self._path = data_folder / NAME
        self._room = room
        self._has_room_for = has_room_for
        self._hold_back = hold_back
        self._next_try_at = 0.0
        self._note(is_kept=_takes_room(self._path))

    def _note(self, *, is_kept: bool) -> None:
        self._is_kept = is_kept
        self._hold_back(0 if is_kept else KEPT_BYTES)

    def keep(self) -> None:
        """Make the file if it is missing and the disk has room for it."""
        if self._is_kept or time.monotonic() < self._next_try_at:
            return
        try:
            with disk.speaking("No room could be kept for the index."):
                if self._has_room_for(KEPT_BYTES):
                    self._allocate()
                    self._note(is_kept=True)
        except PacstewardError as error:
            self._next_try_at = time.monotonic() + _RETRY_S
            _log.warning("%s", error)

    def _allocate(self) -> None:
        descriptor = disk.open_file(self._path, os.O_WRONLY | os.O_CREAT)
        try:
            os.posix_fallocate(descriptor, 0, KEPT_BYTES)
        except BaseException:
            self._path.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)

    def give_up(self, *, may_be_quota: bool = True) -> bool:
        """Give the room to the index if the disk is full; say whether it was given.

        Parameters
        ----------
        may_be_quota
            Also look whether the folder may grow, where the disk says that it has room: that asks
            the file system for as much again.
        """
        if not self._is_kept:
            return False
        try:
            with disk.speaking("The room that was kept for the index could not be given to it."):
                if not _takes_room(self._path):
                    # Somebody has removed it.
                    self._note(is_kept=False)
                    return False
                if not self._has_run_out() and not (may_be_quota and self._is_at_limit()):
                    return False
                # Before it is free, so that no sender gets it first.
                self._note(is_kept=False)
                self._path.unlink(missing_ok=True)
        except PacstewardError as error:
            self._note(is_kept=True)
            _log.warning("%s", error)
            return False
        _log.warning("The disk is full; the index gets what was kept for it.")
        return True

    def _has_run_out(self) -> bool:
        return self._room().free_bytes < KEPT_BYTES

    def _is_at_limit(self) -> bool:
        """Whether the file cannot be twice as long: no quota is in what the disk says is free."""
        descriptor = disk.open_file(self._path, os.O_WRONLY)
        try:
            os.posix_fallocate(descriptor, KEPT_BYTES, KEPT_BYTES)
        except OSError as error:
            if error.errno not in FULL:
                raise
            return True
        else:
            return False
        finally:
            try:
                os.ftruncate(descriptor, KEPT_BYTES)
            finally:
                os.close(descriptor)


def _takes_room(path: Path) -> bool:
    """Whether the file is there, and not only its name: it may have been cut off, or copied."""
    try:
        return path.stat().st_blocks * 512 >= KEPT_BYTES
    except FileNotFoundError:
        return False
