"""Looking for bytes in memory that is not a `bytes` object, such as memory shared with others.

A memoryview has no ``find``, and copying it to have one would cost more than the search.
"""

from __future__ import annotations

import ctypes
from typing import Final

# Held by the interpreter's lock, unlike a foreign call of the other kind: a search is over before
# another thread would have taken over.
_memmem: Final = ctypes.PyDLL(None).memmem
_memmem.restype = ctypes.c_void_p
_memmem.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t)


def address_of(memory: memoryview) -> int:
    """Return where writable memory begins; it must not be empty."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def found_in(data: bytes | memoryview, wanted: bytes, start: int = 0) -> int:
    """Return where `wanted` begins in `data`, from `start` on; -1 when it is not there.

    Parameters
    ----------
    data
        One-dimensional bytes. Memory that cannot be written is copied.
    """
    if isinstance(data, bytes):
        return data.find(wanted, start)
    if data.readonly:
        return bytes(data).find(wanted, start)
    if len(data) - start < len(wanted):
        return -1
    begin = address_of(data)
    place = _memmem(begin + start, len(data) - start, wanted, len(wanted))
    return -1 if place is None else int(place) - begin
