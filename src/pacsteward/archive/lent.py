"""Memory that is lent to one reader after the other.

To ask the system for half a megabyte, have it filled with zeros and give it back takes as long as
a fifth of reading as much from the page cache, for every image again. So a few buffers are kept.
Nobody has to say when he is through with one: a `bytearray` refuses to grow while anybody looks
into it, be it a transport that still sends from it, and is lent anew when it does not refuse.
"""

from __future__ import annotations

from typing import Final

KEPT: Final = 4
"""Buffers: one to fill, one that is on its way, and as many for a second client."""

KEPT_BYTES: Final = 5 << 19
"""The largest one that is kept; 10 MiB altogether."""


class LentMemory:
    """May be shared by threads; what is in the memory it lends is of no use to anybody."""

    def __init__(self) -> None:
        self._buffers = [bytearray() for _ in range(KEPT)]

    def lend(self, size: int) -> memoryview:
        """Return memory of exactly that size, which is the caller's as long as he holds it."""
        if size > KEPT_BYTES:
            return memoryview(bytearray(size))
        tried: list[bytearray] = []
        try:
            while True:
                # The one that came back last is still in the processor's cache. Nobody else can
                # get it meanwhile: it is out of the list until it has been lent.
                try:
                    buffer = self._buffers.pop()
                except IndexError:
                    break
                tried.append(buffer)
                if _is_free(buffer):
                    if len(buffer) < size:
                        buffer.extend(bytes(size - len(buffer)))
                    return memoryview(buffer)[:size]
        finally:
            self._buffers.extend(reversed(tried))
        return memoryview(bytearray(size))


def _is_free(buffer: bytearray) -> bool:
    try:
        buffer.append(0)
    except BufferError:
        return False
    buffer.pop()
    return True
