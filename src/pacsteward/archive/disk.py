"""Bytes to the disk so that they stay there: the few calls that the write path is made of.

Every write, sync and rename of the vault goes through here, for two reasons. Each has the fault
points at which a test may make the world fail (`base/faults.py`). And each says the same of a
failure (`speaking`, `base/disk_failure.py`).

Much that is written once and synced at once goes past the page cache (`StraightWriter`). There it
would be copied once more, and memory be found for it: on a virtual machine whose host has to find
that first this took 1.5 ms for an image of 525 KB, more than the rest of its way; straight to the
disk 0.07 (measured over 3 GB of log). A file system that cannot do it gets ordinary writes.

A sync that failed is never repeated on the same file. The kernel may have dropped the pages and
forgotten the error, so a second one could succeed without anything being on the disk
(https://www.usenix.org/conference/atc20/presentation/rebello).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pacsteward.base import faults
from pacsteward.base.disk_failure import speaking as speaking
from pacsteward.base.disk_failure import translated as translated

_IOV_MAX: Final = 1024
"""Parts that one call takes (``IOV_MAX`` of Linux)."""

BLOCK_BYTES: Final = 4096
"""Offsets and sizes of what goes straight to the disk are multiples of this."""

_STRAIGHT_BYTES: Final = 128 << 10
"""Less is quicker when the sync that follows writes it."""

_COLLECTED_BYTES: Final = 4 << 20


def open_file(path: Path, flags: int) -> int:
    """Open `path` for us alone; a link in its place is refused, never followed."""
    descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        faults.reach("after-open")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def write_all(descriptor: int, parts: Sequence[bytes | memoryview], offset: int) -> int:
    """Write `parts` one behind the other at `offset`; return the offset behind them.

    Nothing is joined in memory: the kernel gathers the parts (pwritev).
    """
    waiting = list(parts)
    while waiting:
        chunk = waiting[:_IOV_MAX]
        del waiting[:_IOV_MAX]
        written = os.pwritev(descriptor, chunk, offset)
        offset += written
        missing = sum(map(len, chunk)) - written
        if missing:
            if written == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            waiting[:0] = _tail(chunk, missing)
    faults.reach("after-write")
    return offset


def _tail(parts: Sequence[bytes | memoryview], size_bytes: int) -> list[bytes | memoryview]:
    """Return the last bytes of `parts`, which a short write left out."""
    tail: list[bytes | memoryview] = []
    for part in reversed(parts):
        if size_bytes <= 0:
            break
        taken = min(size_bytes, len(part))
        tail.append(memoryview(part)[len(part) - taken :])
        size_bytes -= taken
    return tail[::-1]


class StraightWriter:
    """Writes past the page cache what is worth it; for one thread.

    The disk takes whole pages of memory only, so parts are collected in a buffer of its own.
    """

    def __init__(self) -> None:
        self._pages = memoryview(mmap.mmap(-1, _COLLECTED_BYTES))

    def write_all(self, descriptor: int, parts: Sequence[bytes | memoryview], offset: int) -> int:
        """Do as `write_all` does, with parts that fill whole blocks together."""
        if sum(map(len, parts)) < _STRAIGHT_BYTES:
            return write_all(descriptor, parts, offset)
        with _straight(descriptor):
            for filled in self._collected(parts):
                offset = write_blocks(descriptor, self._pages[:filled], offset)
        faults.reach("after-write")
        return offset

    def _collected(self, parts: Sequence[bytes | memoryview]) -> Iterator[int]:
        """Say, whenever the pages are full and at the end, how many bytes are in them."""
        pages, filled = self._pages, 0
        for part in parts:
            begin, size = 0, len(part)
            while begin < size:
                taken = min(size - begin, _COLLECTED_BYTES - filled)
                pages[filled : filled + taken] = part[begin : begin + taken]
                begin += taken
                filled += taken
                if filled == _COLLECTED_BYTES:
                    yield filled
                    filled = 0
        if filled:
            yield filled


def write_blocks(descriptor: int, blocks: memoryview, offset: int) -> int:
    """Write whole pages of memory at `offset`; return the offset behind them."""
    while blocks:
        try:
            written = os.pwrite(descriptor, blocks, offset)
        except OSError as error:
            # Some file systems allow the mode and then no write; and behind a short write the
            # rest may not begin at a block any more.
            if error.errno != errno.EINVAL or not _set_straight(descriptor, is_straight=False):
                raise
            continue
        if written == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        offset += written
        blocks = blocks[written:]
    return offset


@contextmanager
def _straight(descriptor: int) -> Iterator[None]:
    """Have writes go past the page cache, where the file system can do that."""
    _set_straight(descriptor, is_straight=True)
    try:
        yield
    finally:
        _set_straight(descriptor, is_straight=False)


def _set_straight(descriptor: int, *, is_straight: bool) -> bool:
    """Say whether this changed anything."""
    straight = getattr(os, "O_DIRECT", 0)
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    wanted = flags | straight if is_straight else flags & ~straight
    if wanted == flags:
        return False
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, wanted)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    return True


def sync(descriptor: int) -> None:
    """Return once the file's bytes, and what is needed to find them, are on the disk."""
    faults.reach("before-fsync")
    os.fdatasync(descriptor)
    faults.reach("after-fsync")


def sync_folder(folder: Path) -> None:
    """Return once the names in `folder` are on the disk: new files, renamed and removed ones."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
        faults.reach("after-dirsync")
    finally:
        os.close(descriptor)


def rename(source: Path, target: Path) -> None:
    """Give a file its name; durable once the folder is synced."""
    os.rename(source, target)
    faults.reach("after-rename")


_KEEP_SIZE: Final = 0x01
_PUNCH_HOLE: Final = 0x02
_libc = ctypes.CDLL(None, use_errno=True)


def erase(descriptor: int, offset: int, length: int) -> None:
    """Make a part of a file read as zeros, and give its blocks back where that is possible.

    Whole blocks are given back (``fallocate`` with ``FALLOC_FL_PUNCH_HOLE``); a file system that
    cannot do that gets zeros written. Either is synced.
    """
    if length <= 0:
        return
    fallocate = getattr(_libc, "fallocate", None)
    answer = -1
    if fallocate is not None:
        answer = fallocate(
            ctypes.c_int(descriptor),
            ctypes.c_int(_PUNCH_HOLE | _KEEP_SIZE),
            ctypes.c_int64(offset),
            ctypes.c_int64(length),
        )
    if answer != 0:
        zeros = memoryview(bytes(min(length, 1 << 20)))
        end = offset + length
        while offset < end:
            offset = write_all(descriptor, [zeros[: end - offset]], offset)
    sync(descriptor)
