"""Numbers that a process and those forked from it all see.

They lie in memory that is mapped before the fork. One is written with one aligned store of eight
bytes: whoever reads it sees the old number or the new one.
"""

from __future__ import annotations

import mmap

NUMBER_BYTES = 8


def shared_numbers(count: int) -> memoryview:
    """Return so many numbers from 0 to 2**64 - 1, all of them 0."""
    return memoryview(mmap.mmap(-1, count * NUMBER_BYTES)).cast("Q")
