"""Instances that arrive in a process beside the keeper's: the doors.

What associations send is received into memory that the keeper has mapped (`arena.py`), so an
instance is handed over by saying where its pieces lie. An ordinary one is a single message once it
is whole; of a big one the keeper hears while it arrives, part by part, so that memory is bounded
here and there. Fragments too small to be named one by one, and those that found no room in the
shared memory, travel in the message itself.

An ordinary instance is examined here, a big one by the keeper. The keeper's verdict is the answer,
as if the instance had arrived there. While it is away nothing is taken, and senders are told to try
again.

References
----------
`messages.py` for who speaks with whom, `ready.py` and `transfers.py` for what is said.
"""

from __future__ import annotations

import asyncio
import json
import logging
from binascii import b2a_base64
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pacsteward.archive.arena import ReceivingArena, SharedChunk
from pacsteward.archive.examine import READ_ASIDE_BYTES, too_large
from pacsteward.archive.hand_in import ArrivedInstance, TooLong, hand_in, hand_over
from pacsteward.archive.incoming import SMALL_BYTES
from pacsteward.archive.line import Line, Lines, Undelivered, meta_fields, origin_text
from pacsteward.archive.messages import error_of, keeper_is_away, result_of
from pacsteward.archive.model import Origin, StoreResult
from pacsteward.archive.record import checksum_of
from pacsteward.archive.settings import ArchiveSettings
from pacsteward.base.clock import Clock
from pacsteward.base.errors import PacstewardError
from pacsteward.dicom.fragments import Fragments
from pacsteward.dicom.header import HeaderLimits
from pacsteward.dicom.part10 import FileMeta

PART_BYTES: Final = 2 << 20
"""Of a big object, in one message."""

AHEAD_MAX: Final = 8 << 20
"""Of one object, handed over and not taken yet."""

INLINE_MAX: Final = 128 << 10
PLACES_MAX: Final = 16_384
"""Of one message, so that its text stays below what the keeper takes."""

_AGAIN_AFTER_S: Final = 0.5

_log = logging.getLogger(__name__)

DoorLine = Line[ReceivingArena]


@dataclass(frozen=True, slots=True)
class Rules:
    """What an arriving instance has to know.

    Parameters
    ----------
    big_object_bytes
        A larger object is handed over while it arrives.
    prompt_bytes_max
        A larger one is looked at in a thread.
    """

    clock: Clock
    prompt_bytes_max: int
    big_object_bytes: int
    largest_object_bytes: int
    header_limits: HeaderLimits


class Arrivals:
    """Takes instances in on an event loop, for the keeper of a data folder.

    Parameters
    ----------
    run_folder
        ``DIR/run``.
    """

    def __init__(self, run_folder: Path, settings: ArchiveSettings, clock: Clock) -> None:
        self._run_folder = run_folder
        self._rules = Rules(
            clock,
            min(READ_ASIDE_BYTES, settings.big_object_bytes),
            settings.big_object_bytes,
            settings.largest_object_bytes,
            settings.header_limits,
        )
        self._lines: Lines[DoorLine] | None = None
        self._line: DoorLine | None = None
        self._stay: asyncio.Task[None] | None = None
        self._last_transfer = 0

    async def open(self, chunk_bytes: int) -> None:
        """Connect with the keeper, and again whenever it was away.

        Parameters
        ----------
        chunk_bytes
            Of the pieces that `begin_chunk` gives.
        """
        self._lines = Lines(self._run_folder, lambda: DoorLine(ReceivingArena(chunk_bytes)))
        self._line = await self._lines.get()
        self._stay = asyncio.get_running_loop().create_task(self._stay_connected(self._lines))

    async def close(self) -> None:
        """End the connection."""
        if self._stay is not None:
            self._stay.cancel()
            await asyncio.wait({self._stay})
        if self._lines is not None:
            self._lines.close()

    async def _stay_connected(self, lines: Lines[DoorLine]) -> None:
        while True:
            if self._line is not None:
                await self._line.ended.wait()
                self._line = None
            await asyncio.sleep(_AGAIN_AFTER_S)
            try:
                self._line = await lines.get()
            except Exception:  # noqa: BLE001 - whatever it was, the next try may do
                _log.exception("The doors could not be connected with the keeper.")

    def begin_chunk(self) -> SharedChunk | None:
        """Give another piece of the shared memory to receive into; None when there is none."""
        return None if self._line is None else self._line.memory.begin_chunk()

    def receive(self, origin: Origin, meta: FileMeta) -> ArrivingInstance:
        """Begin to take an instance.

        Raises
        ------
        Unavailable
            The keeper is away.
        """
        line = self._line
        if line is None or not line.is_open:
            raise keeper_is_away()
        self._last_transfer += 1
        return ArrivingInstance(line, origin, meta, self._rules, self._last_transfer)


class Pieces(list[bytes | memoryview]):
    """Parts of a data set; while they are here, nothing else is received where they lie."""

    def hold(self) -> None:
        """Go on having them."""

    def release(self) -> None:
        """Have none any more."""
        self.clear()


class ArrivingInstance:
    """One instance; see `model.Incoming`.

    Parameters
    ----------
    transfer
        A number that no other instance of this line has.
    """

    def __init__(
        self, line: DoorLine, origin: Origin, meta: FileMeta, rules: Rules, transfer: int
    ) -> None:
        self._line = line
        self._origin = origin
        self._meta = meta
        self._rules = rules
        self._transfer = transfer
        self._size_bytes = 0
        self._checksum = 0
        self._pieces = Pieces()
        self._places: list[int | str] = []
        self._unsent_bytes = 0
        """Of `_pieces`."""
        self._inline_bytes = 0
        self._has_begun = False
        """Whether the keeper has a part of it."""
        self._small = bytearray()
        self._ahead_bytes = 0
        self._parts: set[asyncio.Future[Any]] = set()
        self._failure: PacstewardError | None = None

    def write(self, fragment: memoryview) -> None:
        """Take the next bytes of the data set; `fragment` stays unchanged until the end."""
        if self._failure is not None:
            return
        length = len(fragment)
        self._size_bytes += length
        if self._size_bytes > self._rules.largest_object_bytes:
            self._fail(too_large(self._meta, self._rules.largest_object_bytes))
            return
        self._checksum = checksum_of(fragment, self._checksum)
        if length <= SMALL_BYTES:
            self._small += fragment
            if len(self._small) >= INLINE_MAX:
                self._put_small()
                self._send_part()
            return
        if self._small:
            self._put_small()
        place = self._line.memory.place_of(fragment)
        if place is None:
            self._write_elsewhere(fragment)
            return
        self._pieces.append(fragment)
        self._places += place, length
        self._unsent_bytes += length
        if self._unsent_bytes >= PART_BYTES and self._is_part():
            self._send_part()

    def _is_part(self) -> bool:
        """Whether what has arrived is to be handed over before the rest comes."""
        is_big = self._size_bytes > self._rules.big_object_bytes
        return is_big or len(self._places) >= PLACES_MAX

    def is_behind(self) -> bool:
        """Whether the keeper is slower than the network, and nothing more should be read now."""
        return self._ahead_bytes > AHEAD_MAX

    async def catch_up(self) -> None:
        """Wait until more may be written."""
        while self.is_behind():
            await asyncio.wait(self._parts, return_when=asyncio.FIRST_COMPLETED)

    async def finish(self) -> StoreResult:
        """Return once the whole is safe; raise what `model.Incoming.finish` does."""
        if self._failure is not None:
            raise self._failure
        if self._small:
            self._put_small()
        is_whole = not self._has_begun and self._size_bytes <= self._rules.big_object_bytes
        try:
            if is_whole:
                with suppress(TooLong):
                    return await hand_over(
                        self._line, self._arrived(), self._pieces, self._rules.header_limits
                    )
            if self._places or not self._has_begun:
                self._send_part()
            message = ("end", self._transfer, self._size_bytes, self._checksum)
            fields = await self._line.ask(json.dumps(message).encode(), Pieces())
        except Undelivered:
            raise keeper_is_away() from None
        if "error" in fields:
            raise error_of(fields["error"])
        return result_of(fields["result"])

    def hand_in(self, tell: Callable[[StoreResult | PacstewardError], None]) -> bool:
        """Do what `finish` does for an ordinary instance, and tell what it returns or raises.

        False when it is another one, or will be refused.
        """
        if self._failure is not None or self._size_bytes > self._rules.prompt_bytes_max:
            return False
        if self._small:
            self._put_small()
        if self._has_begun:
            return False
        try:
            hand_in(self._line, self._arrived(), self._pieces, self._rules.header_limits, tell)
        except (PacstewardError, Undelivered):
            return False
        return True

    def abandon(self) -> None:
        """Leave nothing behind."""
        if self._has_begun:
            self._tell("drop", self._transfer)
        self._pieces = Pieces()
        self._places = []
        self._small.clear()

    # --- inside -----------------------------------------------------------------------------

    def _arrived(self) -> ArrivedInstance:
        return ArrivedInstance(
            self._origin,
            self._meta,
            self._rules.clock.now(),
            Fragments(self._pieces),
            self._checksum,
            self._places,
        )

    def _fail(self, error: PacstewardError) -> None:
        self._failure = error
        self.abandon()

    def _put_small(self) -> None:
        together, self._small = bytes(self._small), bytearray()
        self._put_inline(memoryview(together))

    def _write_elsewhere(self, fragment: memoryview) -> None:
        """Take bytes that do not lie in the shared memory."""
        for start in range(0, len(fragment), INLINE_MAX):
            self._put_inline(fragment[start : start + INLINE_MAX])

    def _put_inline(self, data: memoryview) -> None:
        """Send bytes in the message itself."""
        if self._inline_bytes + len(data) > INLINE_MAX:
            self._send_part()
        self._pieces.append(data)
        self._unsent_bytes += len(data)
        self._places.append(b2a_base64(data, newline=False).decode("ascii"))
        self._inline_bytes += len(data)

    def _send_part(self) -> None:
        self._has_begun = True
        size_bytes, self._unsent_bytes, self._inline_bytes = self._unsent_bytes, 0, 0
        pieces, self._pieces = self._pieces, Pieces()
        places, self._places = self._places, []
        answer = self._tell(
            "part",
            self._transfer,
            origin_text(self._origin),
            meta_fields(self._meta),
            places,
            pieces=pieces,
        )
        if answer is None:
            return
        self._ahead_bytes += size_bytes
        self._parts.add(answer)
        answer.add_done_callback(lambda done: self._part_taken(done, size_bytes))

    def _part_taken(self, answer: asyncio.Future[Any], size_bytes: int) -> None:
        self._parts.discard(answer)
        self._ahead_bytes -= size_bytes
        if self._failure is not None:
            return
        if answer.exception() is not None:
            self._fail(keeper_is_away())
        elif "error" in answer.result():
            self._fail(error_of(answer.result()["error"]))

    def _tell(self, *message: Any, pieces: Pieces | None = None) -> asyncio.Future[Any] | None:
        try:
            answer = self._line.ask(json.dumps(message).encode(), pieces or Pieces())
        except Undelivered:
            # What failed before stays: of an object that is too large the keeper need not know.
            self._failure = self._failure or keeper_is_away()
            return None
        # Whoever waits for the end hears of it; that nobody looked is no fault.
        answer.add_done_callback(lambda done: done.cancelled() or done.exception())
        return answer
