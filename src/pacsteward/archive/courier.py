"""Hands whole instances to the keeper in shared memory: what STOW-RS brings.

Each request puts its bytes on a `Shelf` of its own, an instance being a `Parcel` of them. When it
is whole it is examined, and what was found is a `Letter`; letters are sent several at a time.

References
----------
`messages.py` for who speaks with whom, `line.py` for the connection, `arena.py` for who may write
where.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pacsteward.archive.arena import Arena, Parcel, Shelf
from pacsteward.archive.client import TIMEOUT_S
from pacsteward.archive.hand_in import ArrivedInstance, examined_aside
from pacsteward.archive.line import Line, Lines, Undelivered
from pacsteward.archive.messages import error_of, result_of
from pacsteward.archive.model import Origin, StoreResult
from pacsteward.archive.record import checksum_of
from pacsteward.archive.settings import ArchiveSettings
from pacsteward.base.clock import Clock
from pacsteward.base.errors import PacstewardError
from pacsteward.dicom.fragments import Fragments
from pacsteward.dicom.part10 import FileMeta


@dataclass(frozen=True, slots=True)
class Letter:
    """An instance that was examined and may be sent.

    Parameters
    ----------
    parcel
        Where it lies.
    text
        What the keeper is told.
    stored
        What is to be said when the keeper has nothing to say but that it is stored.
    """

    parcel: Parcel
    text: bytes
    stored: StoreResult


Reply = StoreResult | PacstewardError | None
"""What became of an instance; None when the keeper went away."""


class Courier(Line[Arena]):
    """A line with an arena; made on an event loop."""

    def __init__(self, settings: ArchiveSettings, clock: Clock) -> None:
        super().__init__(Arena())
        self._settings = settings
        self._clock = clock
        # One that is too large is refused by the keeper.
        self._size_bytes_max = min(settings.big_object_bytes, settings.largest_object_bytes)

    def shelf(self) -> Shelf:
        """Give room for the instances of one request."""
        return Shelf(self.memory)

    async def letter(self, origin: Origin, meta: FileMeta, parcel: Parcel, offset: int) -> Letter:
        """Examine a whole instance.

        Parameters
        ----------
        parcel
            Of this courier.
        offset
            Where its data set begins.

        Raises
        ------
        Invalid
            The data set is cut short, or names no instance.
        Undelivered
            It cannot go this way: it is too large for it, or too much is to be said of it.
        """
        size_bytes = parcel.size - offset
        is_ours = self.is_open and parcel.arena is self.memory
        if not is_ours or size_bytes > self._size_bytes_max:
            raise Undelivered
        pieces = tuple(parcel.views(offset))
        checksum = 0
        for piece in pieces:
            checksum = checksum_of(piece, checksum)
        found, text = await examined_aside(
            ArrivedInstance(
                origin,
                meta,
                self._clock.now(),
                Fragments(pieces),
                checksum,
                parcel.places(offset),
            ),
            self._settings.header_limits,
        )
        return Letter(parcel, text, found.stored())

    async def send(self, letters: Sequence[Letter]) -> list[Reply]:
        """Have instances stored; those with a result are safe when this returns.

        Their parcels may be released at any time.
        """
        try:
            answers = self.ask_all([(letter.text, letter.parcel) for letter in letters])
        except Undelivered:
            return [None] * len(letters)
        replies: list[Reply] = [None] * len(letters)
        with suppress(TimeoutError):
            async with asyncio.timeout(TIMEOUT_S):
                for place, answer in enumerate(answers):
                    replies[place] = await _reply(letters[place], answer)
        return replies

    async def store(
        self, origin: Origin, meta: FileMeta, parcel: Parcel, offset: int
    ) -> StoreResult:
        """Store one instance; when this returns, it is safe.

        Raises
        ------
        Invalid, Exhausted, Unavailable
            The keeper did not take it.
        Undelivered
            The keeper went away, or it cannot go this way.
        """
        (reply,) = await self.send([await self.letter(origin, meta, parcel, offset)])
        if reply is None:
            raise Undelivered
        if isinstance(reply, PacstewardError):
            raise reply
        return reply


async def _reply(letter: Letter, answer: asyncio.Future[Any]) -> Reply:
    try:
        fields = await answer
    except Undelivered:
        return None
    if fields is None:
        return letter.stored
    return error_of(fields["error"]) if "error" in fields else result_of(fields["result"])


class Couriers(Lines[Courier]):
    """Gives the courier of this process, and another one when it has broken.

    Parameters
    ----------
    run_folder
        ``DIR/run``.
    """

    def __init__(self, run_folder: Path, settings: ArchiveSettings, clock: Clock) -> None:
        super().__init__(run_folder, lambda: Courier(settings, clock))
