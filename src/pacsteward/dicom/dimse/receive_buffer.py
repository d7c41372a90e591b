"""Where the bytes of an association arrive, so that they are copied once: from the kernel.

An association receives into a *chunk* of 2 MiB; fragments of a data set are slices of it and go to
the data sink as they are. Three rules keep the memory bounded:

- A chunk is written again only when nobody holds a slice of it. There is no bookkeeping for that:
  Python refuses to resize a bytearray while a memoryview of it lives, and asking costs 0.2 µs. So a
  sink that consumes at once (writes to a file) lets one chunk be used over and over, and one that
  collects until its record is written gets another chunk when one is full; it is the sink that
  decides, and rooms stream what is large.
- Between messages an association holds no chunk: a thousand idle ones cost nothing. Chunks are
  lent by a pool, last in, first out, since memory that is warm in the cache is the fastest.
- Until the association is established, its bytes go to a small buffer of its own.
"""

from __future__ import annotations

from collections import deque

_FREE_MAX = 16
_LENT_MAX = 16


class ChunkPool:
    """Lends chunks of one size to the associations of a door.

    Parameters
    ----------
    chunk_size_bytes
        Size of each chunk.
    """

    def __init__(self, chunk_size_bytes: int) -> None:
        self.chunk_size_bytes = chunk_size_bytes
        self._free: list[bytearray] = []
        self._lent: deque[bytearray] = deque()

    def take(self) -> bytearray:
        """Return a chunk that nobody else looks into."""
        if not self._free:
            self._collect()
        return self._free.pop() if self._free else bytearray(self.chunk_size_bytes)

    def give(self, chunk: bytearray) -> None:
        """Take a chunk back. Slices of it may still be held: it rests until they are gone."""
        if len(chunk) != self.chunk_size_bytes:
            return  # an opening buffer
        if is_held(chunk):
            # Beyond a few we forget it; it is freed with its last slice.
            if len(self._lent) < _LENT_MAX:
                self._lent.append(chunk)
        elif len(self._free) < _FREE_MAX:
            self._free.append(chunk)

    def _collect(self) -> None:
        """Move to the free chunks those whose slices are gone."""
        for _ in range(len(self._lent)):
            chunk = self._lent.popleft()
            (self._lent if is_held(chunk) else self._free).append(chunk)


def is_held(chunk: bytearray) -> bool:
    """Whether somebody holds a memoryview of the chunk.

    A bytearray raises BufferError when its size would change under an exported buffer. Taking the
    last byte away and putting one back never moves it, since its allocation stays.
    """
    try:
        chunk.pop()
    except BufferError:
        return True
    chunk.append(0)
    return False


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
        self._chunk: bytearray | None = None
        self.view = memoryview(b"")
        self.start = 0
        self.end = 0

    def room(self, wanted: int) -> memoryview:
        """Return memory for the next bytes, at least `wanted` of them."""
        if self._chunk is None:
            size = self._opening_size_bytes
            self._use(bytearray(size) if size >= wanted else self._pool.take())
        elif len(self._chunk) - self.end < wanted:
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

    def _turn_over(self) -> None:
        """Go on at the beginning of a chunk, with what has not been taken yet.

        That is a part of one PDU at most, so this copies a few percent of a large object.
        """
        rest = bytes(self.view[self.start : self.end])
        self._drop()
        self._use(self._pool.take())
        self.view[: len(rest)] = rest
        self.end = len(rest)

    def _use(self, chunk: bytearray) -> None:
        self._chunk = chunk
        self.view = memoryview(chunk)
        self.start = self.end = 0

    def _drop(self) -> None:
        if self._chunk is not None:
            self.view.release()
            self._pool.give(self._chunk)
            self._chunk = None
        self.view = memoryview(b"")
        self.start = self.end = 0
