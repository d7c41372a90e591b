"""Hands whole instances to the keeper in shared memory: what STOW-RS brings.

Each request puts its bytes on a `Shelf` of its own and sends a `Parcel` when it is whole.

References
----------
`line.py` for the connection, `arena.py` for who may write where.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from pacsteward.archive.arena import Arena, Parcel, Shelf
from pacsteward.archive.client import TIMEOUT_S
from pacsteward.archive.hand_in import TooLong, hand_over
from pacsteward.archive.line import Line, Lines, Undelivered
from pacsteward.archive.model import Origin, StoreResult
from pacsteward.archive.record import checksum_of
from pacsteward.archive.settings import ArchiveSettings
from pacsteward.base.clock import Clock
from pacsteward.dicom.part10 import FileMeta


class Courier(Line[Arena]):
    """A line with an arena; made on an event loop."""

    def __init__(self, settings: ArchiveSettings, clock: Clock) -> None:
        super().__init__(Arena())
        self._settings = settings
        self._clock = clock

    def shelf(self) -> Shelf:
        """Give room for the instances of one request."""
        return Shelf(self.memory)

    async def store(
        self, origin: Origin, meta: FileMeta, parcel: Parcel, offset: int
    ) -> StoreResult:
        """Store a whole instance; when this returns, it is safe.

        Parameters
        ----------
        parcel
            Of this courier. It may be released at any time.
        offset
            Where its data set begins.

        Raises
        ------
        Invalid, Exhausted, Unavailable
            The keeper did not take it.
        Undelivered
            The keeper went away, or the object is a big one: those go another way.
        """
        is_ours = self.is_open and parcel.arena is self.memory
        if not is_ours or parcel.size - offset > self._settings.big_object_bytes:
            raise Undelivered
        pieces = tuple(parcel.views(offset))
        checksum = 0
        for piece in pieces:
            checksum = checksum_of(piece, checksum)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await hand_over(
                    self,
                    origin,
                    meta,
                    pieces,
                    parcel.places(offset),
                    checksum=checksum,
                    received_at=self._clock.now(),
                    limits=self._settings.header_limits,
                    held=parcel,
                )
        except (TimeoutError, TooLong):
            raise Undelivered from None


class Couriers(Lines[Courier]):
    """Gives the courier of this process, and another one when it has broken.

    Parameters
    ----------
    run_folder
        ``DIR/run``.
    """

    def __init__(self, run_folder: Path, settings: ArchiveSettings, clock: Clock) -> None:
        super().__init__(run_folder, lambda: Courier(settings, clock))
