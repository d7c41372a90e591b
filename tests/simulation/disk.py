"""A disk that remembers what was not synced, so that a power cut can take it back.

Stands between the archive and `archive/disk.py`: each write notes what it wrote over, each rename
and each new file is noted until its folder is synced. `Unsynced.lose` does to a copy of the data
folder what a power cut may do: whole writes are lost, or all of one but its first sectors, names
are not yet given.

What a failed sync could not write stays readable and is forgotten: a later sync succeeds without
it, unless all its pages have been written anew meanwhile. That is what Linux does.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from unittest import mock

from pacsteward.archive import disk

_SECTOR: Final = 512
_PAGE: Final = 4096


@dataclass(frozen=True, slots=True)
class _Write:
    offset: int
    length: int
    before: bytes
    """What was there; shorter than `length` where the file ended."""
    is_forgotten: bool = False
    """Whether a sync of it has failed."""

    @property
    def end(self) -> int:
        """Return the offset behind it."""
        return self.offset + self.length

    @property
    def pages(self) -> range:
        """Return which pages of the file it touches."""
        return range(self.offset // _PAGE, -(-self.end // _PAGE))

    def forgotten(self) -> Iterator[_Write]:
        """Give what a failed sync makes of it, page by page."""
        for page in self.pages:
            offset, end = max(page * _PAGE, self.offset), min((page + 1) * _PAGE, self.end)
            before = self.before[offset - self.offset : end - self.offset]
            yield _Write(offset, end - offset, before, is_forgotten=True)


class Unsynced:
    """What one process has written and not synced."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._writes: dict[str, list[_Write]] = {}
        self._renames: list[tuple[str, str]] = []
        self._new: set[str] = set()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Stand between the archive and its disk within the block."""
        real = {
            name: getattr(disk, name)
            for name in (
                *("open_file", "write_all", "write_blocks"),
                *("sync", "sync_folder", "rename"),
            )
        }

        def open_file(path: Path, flags: int) -> int:
            is_new = bool(flags & os.O_CREAT) and not path.exists()
            if is_new:
                with self._lock:
                    self._new.add(str(path))
            return int(real["open_file"](path, flags))

        def write_all(descriptor: int, parts: Sequence[bytes | memoryview], offset: int) -> int:
            self._note_write(descriptor, sum(map(len, parts)), offset)
            return int(real["write_all"](descriptor, parts, offset))

        def write_blocks(descriptor: int, blocks: memoryview, offset: int) -> int:
            self._note_write(descriptor, len(blocks), offset)
            return int(real["write_blocks"](descriptor, blocks, offset))

        def sync(descriptor: int) -> None:
            path = _path_of(descriptor)
            try:
                real["sync"](descriptor)
            except OSError:
                with self._lock:
                    self._writes[path] = [
                        page for one in self._writes.get(path, ()) for page in one.forgotten()
                    ]
                raise
            with self._lock:
                self._written(path)

        def sync_folder(folder: Path) -> None:
            real["sync_folder"](folder)
            with self._lock:
                self._renames = [one for one in self._renames if Path(one[1]).parent != folder]
                self._new = {path for path in self._new if Path(path).parent != folder}

        def rename(source: Path, target: Path) -> None:
            with self._lock:
                self._renames.append((str(source), str(target)))
                self._move(str(source), str(target))
            real["rename"](source, target)

        fakes = {
            "open_file": open_file,
            "write_all": write_all,
            "write_blocks": write_blocks,
            "sync": sync,
            "sync_folder": sync_folder,
            "rename": rename,
        }
        with mock.patch.multiple(disk, **fakes):
            yield

    def inherit(self, earlier: Unsynced) -> None:
        """Take over what an earlier process left unsynced: a kill makes nothing safe."""

        def here(path: str) -> str:
            return str(self._folder / Path(path).relative_to(earlier._folder))

        self._writes = {here(path): list(writes) for path, writes in earlier._writes.items()}
        self._renames = [(here(source), here(target)) for source, target in earlier._renames]
        self._new = {here(path) for path in earlier._new}

    def lose(self, copy: Path, chance: random.Random) -> None:
        """Take back from `copy`, the folder as it was left, what a power cut may lose."""
        with self._lock:
            for path in sorted(self._writes):
                self._lose_writes(self._in(copy, path), self._writes[path], chance)
            for source, target in reversed(self._renames):
                if self._in(copy, target).exists() and chance.random() < 0.5:
                    self._in(copy, source).parent.mkdir(parents=True, exist_ok=True)
                    self._in(copy, target).rename(self._in(copy, source))
            for path in sorted(self._new):
                if chance.random() < 0.5:
                    self._in(copy, path).unlink(missing_ok=True)

    def _note_write(self, descriptor: int, length: int, offset: int) -> None:
        # Not by the descriptor itself, which may be one that takes whole pages of memory only.
        with open(_path_of(descriptor), "rb") as file:
            before = os.pread(file.fileno(), length, offset)
        with self._lock:
            writes = self._writes.setdefault(_path_of(descriptor), [])
            writes.append(_Write(offset, length, before))

    def _written(self, path: str) -> None:
        """Take note of a sync: what was forgotten is safe if it was written anew since."""
        left: list[_Write] = []
        anew: set[int] = set()
        end = 0
        for one in reversed(self._writes.pop(path, [])):
            if not one.is_forgotten:
                anew.update(one.pages)
                end = max(end, one.end)
            elif not anew.issuperset(one.pages):
                # The file is as long as what was synced behind it needs.
                size = max(len(one.before), min(end - one.offset, one.length))
                left.insert(0, replace(one, before=one.before.ljust(size, b"\0")))
        if left:
            self._writes[path] = left

    def _move(self, source: str, target: str) -> None:
        if source in self._writes:
            self._writes[target] = self._writes.pop(source)
        if source in self._new:
            self._new.discard(source)
            self._new.add(target)

    def _in(self, copy: Path, path: str) -> Path:
        return copy / Path(path).relative_to(self._folder)

    @staticmethod
    def _lose_writes(path: Path, writes: Sequence[_Write], chance: random.Random) -> None:
        if not path.is_file():
            return
        # Mostly all of them: that is what a machine that lost its power looks like.
        share = chance.choice((1.0, 1.0, 0.5))
        size = path.stat().st_size
        longer = [one.offset + len(one.before) for one in writes if len(one.before) < one.length]
        end = longer[0] if longer else size
        with path.open("r+b") as file:
            for one in reversed(writes):
                kept = one.length
                if chance.random() < share:
                    kept = chance.choice((0, 0, chance.randrange(one.length + 1)))
                    kept -= kept % _SECTOR
                    file.seek(one.offset + kept)
                    file.write(one.before[kept:].ljust(one.length - kept, b"\0"))
                end = max(end, one.offset + kept if kept else 0)
            file.truncate(min(end, size))


def _path_of(descriptor: int) -> str:
    return os.readlink(f"/proc/self/fd/{descriptor}")
