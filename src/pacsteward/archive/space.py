"""Room on the disk: told to whoever asks, and refused in time.

A full disk loses nothing that was acknowledged, but it stops the index, the log and the machine's
own work. So instances are refused while there is still a reserve; the sender keeps them and sends
them again.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from pacsteward.archive import disk
from pacsteward.archive.model import Space
from pacsteward.archive.settings import ArchiveSettings
from pacsteward.base.clock import Clock
from pacsteward.base.errors import Exhausted

_FRESH_S: Final = 0.5
_CAREFUL: Final = 4
"""The disk is asked again when this many times what was taken since would use up the room."""


def space(data_folder: Path, settings: ArchiveSettings) -> Space:
    """Return the room on the disk of the data folder.

    Raises
    ------
    Unavailable
        The disk does not answer.
    """
    with disk.speaking("The room on the disk could not be told."):
        found = os.statvfs(data_folder)
    total_bytes = found.f_blocks * found.f_frsize
    return Space(total_bytes, found.f_bavail * found.f_frsize, settings.reserve_of(total_bytes))


class SpaceGuard:
    """Refuses instances when the disk is at its reserve.

    It asks the disk twice a second, and more often the nearer the reserve is: half a second of a
    fast sender would use up a small one, and then the index could not be written any more.
    """

    def __init__(self, data_folder: Path, settings: ArchiveSettings, clock: Clock) -> None:
        self._data_folder = data_folder
        self._settings = settings
        self._clock = clock
        self._space: Space | None = None
        self._asked_at = 0.0
        self._taken_bytes = 0
        self._held_back_bytes = 0

    def hold_back(self, size_bytes: int) -> None:
        """Keep so much from senders besides the reserve, until another size is said."""
        self._held_back_bytes = size_bytes

    def took(self, size_bytes: int) -> None:
        """Take note that so much is about to be written."""
        self._taken_bytes += size_bytes

    def now(self) -> Space:
        """Return the room, half a second old at most."""
        now = self._clock.monotonic()
        room = self._space
        if (
            room is None
            or now - self._asked_at > _FRESH_S
            or self._taken_bytes * _CAREFUL >= self._left_bytes(room)
        ):
            room = self._space = space(self._data_folder, self._settings)
            self._asked_at = now
            self._taken_bytes = 0
        return room

    def check(self) -> None:
        """Return if there is room.

        Raises
        ------
        Exhausted
            The reserve is reached.
        """
        room = self.now()
        if self._left_bytes(room) <= 0:
            raise Exhausted(
                "The instance was not stored.",
                why=(
                    f"The disk of the archive has {room.free_bytes >> 20} MiB free and keeps "
                    f"{room.reserve_bytes + self._held_back_bytes >> 20} MiB in reserve."
                ),
                remedy="Free space on it; the sender will try again.",
            )

    def has_room_for(self, size_bytes: int, *, is_held_back: bool = False) -> bool:
        """Whether `size_bytes` can be used for comfort, leaving twice as much and the reserve.

        Parameters
        ----------
        is_held_back
            It is what is held back from senders, which it takes the place of.
        """
        left_bytes = self._left_bytes(self.now())
        return left_bytes + (self._held_back_bytes if is_held_back else 0) > 3 * size_bytes

    def _left_bytes(self, room: Space) -> int:
        """Return what senders may still use up."""
        return room.free_bytes - room.reserve_bytes - self._held_back_bytes
