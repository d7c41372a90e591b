"""Parts of an object, checked: what makes a frame of a long film as safe as a whole object.

The checksum that is taken on arrival is that of a whole data set. To compare it at every frame
would read a film of a thousand frames a thousand times. So the first read of a part goes through
the whole object once, compares it, and notes a checksum of each block on the way; from then on a
part is compared with those of the blocks that it touches. They are kept in memory for the objects
that were used last, and made anew, by a whole read, for any other: nothing that was believed once
is believed for longer than it is remembered bit by bit.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable
from typing import Final

from pacsteward.archive.model import Location
from pacsteward.archive.recent import Recent
from pacsteward.archive.record import checksum_of

BLOCK_BYTES: Final = 256 * 1024
"""So little more than was asked for is read with a part, and 16 KiB remember an object of 1 GiB."""

_REMEMBERED: Final = 1 << 20
"""Checksums kept in a process: 4 MiB, for 256 GiB of objects."""
_LOCKS: Final = 16

RawReader = Callable[[int, int], bytes | bytearray]
"""Given offset and length, gives exactly those bytes of the data set, unchecked."""


class BlockChecksums:
    """The checksums of the blocks of the objects that were used last; share one in a process."""

    def __init__(self) -> None:
        self._known: Recent[tuple[Location, int], array[int]] = Recent(_REMEMBERED, len)
        # An object is gone through by one thread; others that want a part of it wait.
        self._locks = [threading.Lock() for _ in range(_LOCKS)]

    def of(
        self, location: Location, checksum: int, read: RawReader, compare: Callable[[int], None]
    ) -> array[int]:
        """Return the checksums of an object's blocks, after a whole read where none are known.

        Parameters
        ----------
        checksum
            Of the whole object, as it was on arrival.
        compare
            Told the checksum that was found; raises where it is another one.
        """
        key = (location, checksum)
        known = self._known.get(key)
        if known is not None:
            return known
        with self._locks[hash(key) % _LOCKS]:
            known = self._known.get(key)
            return known if known is not None else self.renew(location, checksum, read, compare)

    def has(self, location: Location, checksum: int) -> bool:
        """Say whether `of` has nothing to read."""
        return self._known.get((location, checksum)) is not None

    def renew(
        self, location: Location, checksum: int, read: RawReader, compare: Callable[[int], None]
    ) -> array[int]:
        """Do the same, with a whole read in any case."""
        found, blocks = _whole(location.length, read)
        compare(found)
        self._known.put((location, checksum), blocks)
        return blocks


def checked_range(blocks: array[int], read: RawReader, offset: int, length: int) -> bytes | None:
    """Return a part of an object, None when a block that it touches is not what it was."""
    first = offset // BLOCK_BYTES
    end = -(-(offset + length) // BLOCK_BYTES)
    data = memoryview(read(first * BLOCK_BYTES, (end - first) * BLOCK_BYTES))
    for number in range(first, end):
        at = (number - first) * BLOCK_BYTES
        if checksum_of(data[at : at + BLOCK_BYTES]) != blocks[number]:
            return None
    start = offset - first * BLOCK_BYTES
    return bytes(data[start : start + length])


def _whole(size: int, read: RawReader) -> tuple[int, array[int]]:
    """Return the checksum of a whole object, and those of its blocks."""
    checksum, blocks = 0, array("I")
    for offset in range(0, size, BLOCK_BYTES):
        block = read(offset, BLOCK_BYTES)
        checksum = checksum_of(block, checksum)
        blocks.append(checksum_of(block))
    return checksum, blocks
