"""Where the bytes of an association arrive, so that they are copied once: from the kernel.

An association receives into a *chunk* of 2 MiB; fragments of a data set are slices of it and go to
the data sink as they are. Three rules keep the memory bounded:

- A chunk is written again only when nobody holds a slice of it. There is no bookkeeping for that:
  every memoryview of it holds a reference, and counting them costs 0.1 µs. So a sink that consumes
  at once (writes to a file) lets one chunk be used over and over, and one that collects until its
  record is written gets another chunk when one is full; it is the sink that decides, and rooms
  stream what is large.
- Between messages an association holds no chunk: a thousand idle ones cost nothing. Chunks are
  lent by a pool, last in, first out, since memory that is warm in the cache is the fastest.
- Until the association is established, its bytes go to a small buffer of its own.

A chunk's memory may be shared with another process (`ChunkPool.more`). Such memory is never given
back before its time comes: it is *retired* when that process goes away.
"""

from __future__ import annotations

import ctypes
import sys
from collections import deque
from collections.abc import Callable
from typing import Protocol

Memory = bytearray | ctypes.Array[ctypes.c_char]

_FREE_MAX = 16
_LENT_MAX = 16
_REFERENCES = 2
"""Of memory that nobody looks into: its chunk's, and that of who counts."""


class Chunk(Protocol):
    """Memory that is lent as a whole. Nobody but the chunk holds a reference to it."""

    @property
    def memory(self) -> Memory:
        """Of the size of the pool's chunks."""
        ...

    @property
    def is_retired(self) -> bool:
        """Whether it must not be written any more."""
        ...

    def empty(self) -> None:
        """Occupy no room until it is written again."""
        ...


class OwnChunk:
    """A chunk of this process alone."""

    __slots__ = ("memory",)

    is_retired = False

    def __init__(self, size_bytes: int) -> None:
        self.memory = bytearray(size_bytes)

    def empty(self) -> None:
        """Stay: it is freed as a whole."""


class ChunkPool:
    """Lends chunks of one size to the associations of a door.

    Parameters
    ----------
    chunk_size_bytes
        Size of each chunk.
    more
        Gives another chunk of memory that is shared, or None.
    """

    def __init__(
        self, chunk_size_bytes: int, more: Callable[[], Chunk | None] | None = None
    ) -> None:
        self.chunk_size_bytes = chunk_size_bytes
        self._more = more
        self._free: list[Chunk] = []
        self._cold: list[Chunk] = []
        self._lent: deque[Chunk] = deque()

    def take(self) -> Chunk:
        """Return a chunk that nobody else looks into."""
        if not self._free:
            self._collect()
        for chunks in (self._free, self._cold):
            while chunks:
                chunk = chunks.pop()
                if not chunk.is_retired:
                    return chunk
        shared = None if self._more is None else self._more()
        return shared or OwnChunk(self.chunk_size_bytes)

    def give(self, chunk: Chunk) -> None:
        """Take a chunk back. Slices of it may still be held: it rests until they are gone."""
        if chunk.is_retired or len(chunk.memory) != self.chunk_size_bytes:
            # The latter is an opening buffer.
            return
        if type(chunk) is OwnChunk and self._more is not None:
            # Lent while no other was to be had; those that are shared save a copy.
            return
        if not is_held(chunk):
            self._put_back(chunk)
        elif type(chunk) is not OwnChunk or len(self._lent) < _LENT_MAX:
            self._lent.append(chunk)

    def _put_back(self, chunk: Chunk) -> None:
        """Keep a few that are warm; of the others shared memory is emptied, and ours forgotten."""
        if len(self._free) < _FREE_MAX:
            self._free.append(chunk)
        elif type(chunk) is not OwnChunk:
            chunk.empty()
            self._cold.append(chunk)

    def _collect(self) -> None:
        """Take those back whose slices are gone."""
        for _ in range(len(self._lent)):
            chunk = self._lent.popleft()
            if chunk.is_retired:
                continue
            if is_held(chunk):
                self._lent.append(chunk)
            else:
                self._put_back(chunk)


def is_held(chunk: Chunk) -> bool:
    """Whether somebody holds a memoryview of the chunk."""
    return sys.getrefcount(chunk.memory) > _REFERENCES


class ReceiveBuffer:
    """The bytes of one association that were received and not yet taken.

    They are ``view[start:end]``. Whoever reads them moves `start` on.

    Parameters
    ----------
    pool
        Lends the chunks.
    opening_size_bytes
        Size of the first buffer, used until `rewind` is called.
    """

    def __init__(self, pool: ChunkPool, opening_size_bytes: int) -> None:
        self._pool = pool
        self._opening_size_bytes = opening_size_bytes
        self._chunk: Chunk | None = None
        self.view = memoryview(b"")
        self.start = 0
        self.end = 0

    def room(self, wanted: int) -> memoryview:
        """Return memory for the next bytes, at least `wanted` of them."""
        if self._chunk is None:
            size = self._opening_size_bytes
            self._use(OwnChunk(size) if size >= wanted else self._pool.take())
        elif len(self.view) - self.end < wanted:
            self._turn_over()
        return self.view[self.end :]

    def rewind(self) -> None:
        """Give the chunk back when all of it was taken; to be called between messages."""
        self._opening_size_bytes = 0
        if self._chunk is not None and self.start == self.end:
            self._drop()

    def discard(self) -> None:
        """Forget what was received; the association is over."""
        self.start = self.end
        self._drop()
        # An association that we opened has a pool of its own, and lives until the collector of
        # cycles comes by, which is seldom: megabytes for each C-MOVE. The pool is not to wait.
        self._pool = ChunkPool(self._pool.chunk_size_bytes)

    def _turn_over(self) -> None:
        """Go on at the beginning of a chunk, with what has not been taken yet.

        That is a part of one PDU at most, so this copies a few percent of a large object.
        """
        rest = bytes(self.view[self.start : self.end])
        self._drop()
        self._use(self._pool.take())
        self.view[: len(rest)] = rest
        self.end = len(rest)

    def _use(self, chunk: Chunk) -> None:
        self._chunk = chunk
        self.view = memoryview(chunk.memory).cast("B")
        self.start = self.end = 0

    def _drop(self) -> None:
        if self._chunk is not None:
            self.view.release()
            self._pool.give(self._chunk)
            self._chunk = None
        self.view = memoryview(b"")
        self.start = self.end = 0
