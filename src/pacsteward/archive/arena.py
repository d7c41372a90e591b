"""Memory that a process shares with the keeper: instances lie in it while they are handed over.

The process that hands over owns an arena: a file of a fixed size that exists in memory only and has
no name, so a crash leaves nothing behind. It is lent in blocks. A `Shelf` takes the bytes of one
request as they come, and a `Parcel` is one instance on it, in one piece or several. A block is lent
again when nobody has a hold on it: neither the shelf, nor a parcel that lies on it.

What associations send is received into a `ReceivingArena`: it is lent in chunks, and a chunk that
somebody still looks into is not written again (`receive_buffer.py` sees to that).

The keeper maps the same file, for reading only (`mapped`), and is told where the pieces are
(`sharing.py`). It checks each place against the size of its own mapping; it takes a file that can
neither shrink nor grow (seals), since to touch a page behind the end would kill it. Of what is left
it need not be afraid, and cannot be sure either: whoever owns the arena could change bytes while
they are being written. The checksum would then not agree with what is on the disk; the record would
read as damaged, and so might the end of the log after a crash. So nothing but the rule of the
blocks stands between a mistake here and a damaged record: **a parcel that was sent keeps its blocks
until its answer is there**, and an arena whose connection broke is never written to again. Against
malice there is nothing to gain: who may connect runs as the same user and owns the data folder.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
from collections.abc import Iterator
from typing import Final

from pacsteward.base.errors import Invalid
from pacsteward.base.memory import address_of

BLOCK_BYTES: Final = 512 << 10
ARENA_BYTES: Final = 64 << 20
"""A page of it takes room only once it was used, and blocks that are warm are lent first."""

RECEIVING_BYTES: Final = 1 << 30
"""Enough for five hundred associations that are in the middle of a message. Chunks that are warm
are lent first, so hardly any of it is ever used."""

ROOM_MIN: Final = 16 << 10
"""Less of a block is not given to receive into: each piece received costs about the same."""

_MAPPED_MAX: Final = 1 << 30
_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class SharedMemory:
    """A file in memory that neither shrinks nor grows, mapped here to be written.

    Parameters
    ----------
    size_bytes
        Fixed; a page takes room only once it was used.
    """

    def __init__(self, size_bytes: int) -> None:
        self.descriptor = os.memfd_create("pacsteward-arena", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.descriptor, size_bytes)
            fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, _SEALS)
            self._map = mmap.mmap(self.descriptor, size_bytes)
        except BaseException:
            os.close(self.descriptor)
            raise
        self.size_bytes = size_bytes
        self.is_retired = False

    def retire(self) -> None:
        """Lend nothing any more; what lies here can still be read by those who put it here."""
        self.is_retired = True

    def close_descriptor(self) -> None:
        """Let the file go; it lives as long as somebody has it mapped."""
        os.close(self.descriptor)


class Arena(SharedMemory):
    """Shared memory, and which blocks of it are free.

    Parameters
    ----------
    size_bytes
        A multiple of `BLOCK_BYTES`.
    """

    def __init__(self, size_bytes: int = ARENA_BYTES) -> None:
        super().__init__(size_bytes)
        memory = memoryview(self._map)
        self._address = address_of(memory)
        self._blocks = [
            Block(self, offset, memory[offset : offset + BLOCK_BYTES])
            for offset in range(0, size_bytes, BLOCK_BYTES)
        ]
        self._free = self._blocks[::-1]

    def place_of(self, data: memoryview) -> tuple[Block, int] | None:
        """Return in which block bytes lie, and where in it; None for those that lie elsewhere."""
        if data.readonly:
            return None
        offset = address_of(data) - self._address
        if not 0 <= offset < self.size_bytes:
            return None
        return self._blocks[offset // BLOCK_BYTES], offset % BLOCK_BYTES

    def take(self) -> Block | None:
        """Lend a block, or None when all are lent."""
        return self._free.pop() if self._free and not self.is_retired else None

    def give(self, block: Block) -> None:
        """Take a block back, on which nobody has a hold."""
        self._free.append(block)


class ReceivingArena(SharedMemory):
    """Shared memory that associations receive into.

    Parameters
    ----------
    chunk_bytes
        Size of the pieces that it is lent in.
    """

    def __init__(self, chunk_bytes: int) -> None:
        super().__init__(RECEIVING_BYTES // chunk_bytes * chunk_bytes)
        self._chunk_bytes = chunk_bytes
        self._begun_bytes = 0
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._map))

    def begin_chunk(self) -> SharedChunk | None:
        """Give away a piece that nobody had before, or None when there is none left."""
        if self.is_retired or self._begun_bytes == self.size_bytes:
            return None
        start = self._begun_bytes
        self._begun_bytes += self._chunk_bytes
        memory = (ctypes.c_char * self._chunk_bytes).from_buffer(self._map, start)
        return SharedChunk(self, start, memory)

    def place_of(self, fragment: memoryview) -> int | None:
        """Return where bytes lie, counted from the beginning; None for those that lie elsewhere."""
        offset = ctypes.addressof(ctypes.c_char.from_buffer(fragment)) - self._address
        return offset if 0 <= offset <= self.size_bytes - len(fragment) else None

    def empty(self, start: int, length: int) -> None:
        """Give the system back what a piece occupies; it reads as zeros then."""
        self._map.madvise(mmap.MADV_REMOVE, start, length)


class SharedChunk:
    """A piece of a `ReceivingArena`.

    Parameters
    ----------
    start
        Where it begins in the arena.
    memory
        Of the piece.
    """

    __slots__ = ("_arena", "_start", "memory")

    def __init__(
        self, arena: ReceivingArena, start: int, memory: ctypes.Array[ctypes.c_char]
    ) -> None:
        self._arena = arena
        self._start = start
        self.memory = memory

    @property
    def is_retired(self) -> bool:
        """Whether the keeper that knew this memory is gone, and nobody knows who still reads it."""
        return self._arena.is_retired

    def empty(self) -> None:
        """Occupy no room until it is written again."""
        self._arena.empty(self._start, len(self.memory))


class Block:
    """A part of an arena, with the number of those who have a hold on it."""

    __slots__ = ("_arena", "_holds", "offset", "view")

    def __init__(self, arena: Arena, offset: int, view: memoryview) -> None:
        self._arena = arena
        self._holds = 0
        self.offset = offset
        self.view = view

    def hold(self) -> None:
        """Keep it from being lent again."""
        self._holds += 1

    def let_go(self) -> None:
        """End a hold; the last one gives it back."""
        self._holds -= 1
        if not self._holds:
            self._arena.give(self)


class Shelf:
    """Takes bytes as they come, block after block; several parcels may lie in one block.

    Parameters
    ----------
    arena
        Lends the blocks.
    """

    def __init__(self, arena: Arena) -> None:
        self.arena = arena
        self._block: Block | None = None
        self._before: Block | None = None
        """The block before: what was received at its end may still wait for what follows it."""
        self._filled = 0

    def room(self) -> memoryview | None:
        """Give memory to receive the next bytes into; None when there is no block.

        What was received is told to `received`. Whoever writes that to a parcel writes no copy.
        """
        if BLOCK_BYTES - self._filled < ROOM_MIN or self._block is None:
            self._begin_block()
        return None if self._block is None else self._block.view[self._filled :]

    def received(self, count: int) -> None:
        """Take note of so many bytes at the beginning of the last `room`."""
        self._filled += count

    def put(self, data: memoryview) -> tuple[Block, int, int] | None:
        """Copy as much of `data` as the block has room for.

        Returns
        -------
        (Block, int, int) or None
            Where it lies: block, first byte in it, number of bytes. None when there is no block.
        """
        if self._block is None or self._filled == BLOCK_BYTES:
            self._begin_block()
            if self._block is None:
                return None
        start = self._filled
        count = min(len(data), BLOCK_BYTES - start)
        self._block.view[start : start + count] = data[:count]
        self._filled += count
        return self._block, start, count

    def close(self) -> None:
        """Put nothing more here."""
        for block in (self._before, self._block):
            if block is not None:
                block.let_go()
        self._before = self._block = None

    def _begin_block(self) -> None:
        if self._block is not None:
            # Only now: as long as there is no other block, what was received last is in this one.
            if self._before is not None:
                self._before.let_go()
            self._before = self._block
        self._block = self.arena.take()
        if self._block is not None:
            self._block.hold()
        self._filled = 0


class Parcel:
    """One instance that lies in shared memory; `release` it exactly once.

    Parameters
    ----------
    shelf
        Where its bytes are put.
    """

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._pieces: list[tuple[Block, int, int]] = []
        self._holds = 1
        self.arena = shelf.arena
        self.size = 0

    def write(self, data: memoryview) -> int:
        """Take the next bytes; return how many found room. Fewer than all: the arena is full.

        They are copied unless they were received on the shelf.
        """
        if not data:
            return 0
        here = self.arena.place_of(data)
        if here is not None:
            self._add(*here, len(data))
            self.size += len(data)
            return len(data)
        taken = 0
        while taken < len(data):
            piece = self._shelf.put(data[taken:])
            if piece is None:
                break
            self._add(*piece)
            taken += piece[2]
        self.size += taken
        return taken

    def _add(self, block: Block, start: int, count: int) -> None:
        if self._pieces:
            last, last_start, last_count = self._pieces[-1]
            if last is block and last_start + last_count == start:
                self._pieces[-1] = block, last_start, last_count + count
                return
        block.hold()
        self._pieces.append((block, start, count))

    def views(self, offset: int = 0) -> Iterator[memoryview]:
        """Give its bytes from `offset` on, without copying them."""
        for block, start, count in self._pieces:
            if offset < count:
                yield block.view[start + offset : start + count]
            offset = max(0, offset - count)

    def places(self, offset: int = 0) -> list[int]:
        """Return where its bytes from `offset` on lie: place and length of each piece in turn."""
        places: list[int] = []
        for block, start, count in self._pieces:
            if offset < count:
                places += block.offset + start + offset, count - offset
            offset = max(0, offset - count)
        return places

    def hold(self) -> None:
        """Keep it from being released: it was sent, and its answer is not here."""
        self._holds += 1

    def release(self) -> None:
        """End a hold; the first one is its maker's."""
        self._holds -= 1
        if not self._holds:
            for block, _, _ in self._pieces:
                block.let_go()
            self._pieces.clear()


def mapped(descriptor: int) -> memoryview:
    """Map the arena of another process, for reading.

    Raises
    ------
    Invalid
        It is none that can be trusted to keep its size.
    """
    try:
        seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    except OSError:
        seals = 0
    size_bytes = os.fstat(descriptor).st_size
    if seals & _SEALS != _SEALS or not 0 < size_bytes <= _MAPPED_MAX:
        raise Invalid(
            "The memory was not taken.",
            why="It can change its size, or is larger than an arena may be.",
        )
    return memoryview(mmap.mmap(descriptor, size_bytes, access=mmap.ACCESS_READ))
