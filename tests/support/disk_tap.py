"""Between the archive and the disk: every call that changes a file or a name below one folder.

`Tap` takes the place of the operating system's calls in `os` while its block lasts, so nothing of
the write path can go past it, whoever makes the call. What is done with it: a `Recording` writes
down each call in order, from which `Recording.cut` makes the folder as a power cut at any moment
might have left it; a `Failing` tap lets the n-th call fail.

SQLite makes its calls itself and is not seen here: the index is recorded as a whole, after each of
its transactions, and its own recovery is trusted.

What a power cut may leave (POSIX, and no more than that): bytes that were not synced since they
were written, each sector of 512 bytes by itself or not; a length of the file between the synced and
the last one; a new, changed or removed name whose folder was not synced since, by itself or not; a
rename wholly or not at all. A folder whose own name was not kept takes all in it along.
"""

from __future__ import annotations

import os
import posix
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final
from unittest.mock import patch

from pacsteward.archive import disk

SECTOR: Final = 512


@dataclass(frozen=True, slots=True)
class Step:
    """One call, or what happened between two.

    Parameters
    ----------
    kind
        ``open`` (a new file), ``write``, ``truncate``, ``sync``, ``rename``, ``unlink``,
        ``mkdir``, ``sync_folder``, or ``mark``.
    name, target
        Below the folder.
    file
        Number of the file's contents, which stays when it is renamed.
    mark
        Anything that whoever recorded wanted to remember at this moment.
    """

    kind: str
    name: str = ""
    target: str = ""
    file: int = 0
    offset: int = 0
    data: bytes = b""
    mark: Any = None


class Tap:
    """See the top of the file; this one lets everything pass, except that nothing is synced.

    Parameters
    ----------
    folder
        Calls elsewhere are not looked at.
    syncs
        Whether a sync is one. No power is cut in a test, so it only takes time.
    """

    def __init__(self, folder: Path, *, syncs: bool = False) -> None:
        self.folder = str(folder)
        self.syncs = syncs
        self._lock = threading.RLock()
        self._open_files: dict[int, tuple[str, int]] = {}
        self._contents: dict[str, int] = {}
        self._last_content = 0

    def about_to(self, call: str, name: str) -> None:
        """Be told before a call is made; an exception is what the caller gets instead."""

    def was_done(self, step: Step) -> None:
        """Be told what was done, in order."""

    @contextmanager
    def tapped(self) -> Iterator[None]:
        """Stand between within a block."""
        calls = {
            name: self._wrapped(name, getattr(os, name))
            for name in (
                *("open", "close", "pwrite", "pwritev", "ftruncate", "fdatasync", "fsync"),
                *("rename", "unlink", "mkdir"),
            )
        }
        # Where holes cannot be punched zeros are written, which is seen.
        with (
            patch.multiple(os, **calls),
            patch.object(disk, "_libc", SimpleNamespace(fallocate=None)),
        ):
            yield

    def _wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        tap = getattr(self, f"_{name}")

        def call(*arguments: Any, **more: Any) -> Any:
            with self._lock:
                return tap(real, *arguments, **more)

        return call

    def _below(self, path: Any) -> str | None:
        text = os.path.abspath(os.fspath(path)) if not isinstance(path, int) else ""
        return text[len(self.folder) + 1 :] if text.startswith(self.folder + os.sep) else None

    def _is_folder_itself(self, path: Any) -> bool:
        return not isinstance(path, int) and os.path.abspath(os.fspath(path)) == self.folder

    # --- the calls --------------------------------------------------------------------------

    def _open(self, real: Any, path: Any, flags: int, *arguments: Any, **more: Any) -> int:
        name = "" if self._is_folder_itself(path) else self._below(path)
        if name is None or flags & os.O_PATH:
            return int(real(path, flags, *arguments, **more))
        self.about_to("open", name)
        is_new = not os.path.lexists(path)
        descriptor = int(real(path, flags, *arguments, **more))
        if flags & os.O_DIRECTORY:
            self._open_files[descriptor] = (name, 0)
            return descriptor
        if is_new or name not in self._contents:
            self._last_content += 1
            self._contents[name] = self._last_content
        content = self._contents[name]
        self._open_files[descriptor] = (name, content)
        if is_new:
            self.was_done(Step("open", name, file=content))
        elif flags & os.O_TRUNC:
            self.was_done(Step("truncate", name, file=content))
        return descriptor

    def _close(self, real: Any, descriptor: int) -> None:
        self._open_files.pop(descriptor, None)
        real(descriptor)

    def _pwritev(
        self, real: Any, descriptor: int, parts: Sequence[Any], offset: int, *more: Any
    ) -> int:
        return self._written(
            lambda: real(descriptor, parts, offset, *more), descriptor, offset, parts
        )

    def _pwrite(self, real: Any, descriptor: int, data: Any, offset: int) -> int:
        return self._written(lambda: real(descriptor, data, offset), descriptor, offset, [data])

    def _written(
        self, write: Callable[[], int], descriptor: int, offset: int, parts: Sequence[Any]
    ) -> int:
        opened = self._open_files.get(descriptor)
        if opened is None:
            return write()
        name, content = opened
        self.about_to("write", name)
        count = write()
        data = b"".join(bytes(part) for part in parts)[:count]
        self.was_done(Step("write", name, file=content, offset=offset, data=data))
        return count

    def _ftruncate(self, real: Any, descriptor: int, length: int) -> None:
        opened = self._open_files.get(descriptor)
        if opened is not None:
            self.about_to("truncate", opened[0])
        real(descriptor, length)
        if opened is not None:
            self.was_done(Step("truncate", opened[0], file=opened[1], offset=length))

    def _fdatasync(self, real: Any, descriptor: int) -> None:
        opened = self._open_files.get(descriptor)
        if opened is not None:
            self.about_to("sync", opened[0])
        if self.syncs:
            real(descriptor)
        if opened is not None:
            kind = "sync" if opened[1] else "sync_folder"
            self.was_done(Step(kind, opened[0], file=opened[1]))

    _fsync = _fdatasync

    def _rename(self, real: Any, source: Any, target: Any, **more: Any) -> None:
        old, new = self._below(source), self._below(target)
        if old is None or new is None:
            real(source, target, **more)
            return
        self.about_to("rename", old)
        real(source, target, **more)
        content = self._contents.pop(old, 0)
        self._contents[new] = content
        self.was_done(Step("rename", old, new, file=content))

    def _unlink(self, real: Any, path: Any, **more: Any) -> None:
        name = self._below(path)
        if name is None:
            real(path, **more)
            return
        self.about_to("unlink", name)
        real(path, **more)
        self.was_done(Step("unlink", name, file=self._contents.pop(name, 0)))

    def _mkdir(self, real: Any, path: Any, *arguments: Any, **more: Any) -> None:
        name = self._below(path)
        if name is None:
            real(path, *arguments, **more)
            return
        self.about_to("mkdir", name)
        real(path, *arguments, **more)
        self.was_done(Step("mkdir", name))


class Failing(Tap):
    """Lets the n-th call fail, counted from 1.

    Parameters
    ----------
    is_lasting
        Whether all later ones fail too.
    is_short
        A write that is to fail writes its first half, as on a disk that gets full, and the call
        after it fails.
    """

    def __init__(
        self,
        folder: Path,
        first: int,
        error: int,
        *,
        is_lasting: bool = False,
        is_short: bool = False,
    ) -> None:
        super().__init__(folder)
        self.first = first
        self.error = error
        self.is_lasting = is_lasting
        self.is_short = is_short
        self.is_armed = True
        self.calls: list[str] = []

    def about_to(self, call: str, name: str) -> None:
        if not self.is_armed:
            return
        self.calls.append(f"{call} {name}")
        count = len(self.calls)
        if count == self.first or (self.is_lasting and count > self.first):
            raise OSError(self.error, os.strerror(self.error))

    @property
    def was_reached(self) -> bool:
        """Whether there was an n-th call."""
        return len(self.calls) >= self.first

    def _written(
        self, write: Callable[[], int], descriptor: int, offset: int, parts: Sequence[Any]
    ) -> int:
        is_due = self.is_armed and len(self.calls) + 1 == self.first
        if not (self.is_short and is_due and descriptor in self._open_files):
            return super()._written(write, descriptor, offset, parts)
        self.calls.append(f"half of write {self._open_files[descriptor][0]}")
        self.first += 1
        data = b"".join(bytes(part) for part in parts)
        # Not by `os`, whose calls are ours by now.
        return posix.pwrite(descriptor, data[: max(1, len(data) // 2)], offset)


@dataclass
class Chances:
    """How likely it is that each thing that is not safe survives a cut, from 0 to 1."""

    chance: random.Random
    sectors: float
    names: float

    def keeps_sector(self) -> bool:
        return self.chance.random() < self.sectors

    def keeps_name(self) -> bool:
        return self.chance.random() < self.names


class Recording(Tap):
    """Writes down all steps."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.steps: list[Step] = []

    def was_done(self, step: Step) -> None:
        self.steps.append(step)

    def mark(self, what: Callable[[], Any] | Any) -> None:
        """Remember something at this moment; a function is called while everything stands still."""
        with self._lock:
            self.steps.append(Step("mark", mark=what() if callable(what) else what))

    def marks(self, until: int) -> list[Any]:
        """Return what was marked before a step."""
        return [step.mark for step in self.steps[:until] if step.kind == "mark"]

    def cut(self, until: int, target: Path, chances: Chances) -> None:
        """Make `target` as a power cut before step `until` might have left the folder."""
        state = _State()
        safe_files, safe_folders = _last_syncs(self.steps[:until])
        for index, step in enumerate(self.steps[:until]):
            state.take(
                step,
                chances,
                is_safe_content=index < safe_files.get(step.file, -1),
                is_safe_name=index < safe_folders.get(_folder_of(step), -1),
            )
        state.make(target)


def _last_syncs(steps: Sequence[Step]) -> tuple[dict[int, int], dict[str, int]]:
    files: dict[int, int] = {}
    folders: dict[str, int] = {}
    for index, step in enumerate(steps):
        if step.kind == "sync":
            files[step.file] = index
        elif step.kind == "sync_folder":
            folders[step.name] = index
    return files, folders


def _folder_of(step: Step) -> str:
    return os.path.dirname(step.target or step.name)


@dataclass
class _State:
    """The folder as it may have been left: names and contents."""

    files: dict[str, int] = field(default_factory=dict)
    folders: set[str] = field(default_factory=lambda: {""})
    contents: dict[int, bytearray] = field(default_factory=dict)

    def take(
        self, step: Step, chances: Chances, *, is_safe_content: bool, is_safe_name: bool
    ) -> None:
        if step.kind in ("open", "mkdir", "rename", "unlink"):
            if is_safe_name or chances.keeps_name():
                self._name(step)
        elif step.kind == "truncate":
            if is_safe_content or chances.keeps_sector():
                content = self._content(step.file)
                del content[step.offset :]
                content.extend(bytes(step.offset - len(content)))
        elif step.kind == "write":
            if is_safe_content:
                self._write(step.file, step.offset, step.data)
            else:
                self._write_torn(step, chances)

    def _name(self, step: Step) -> None:
        if step.kind == "mkdir":
            self.folders.add(step.name)
        elif step.kind == "open":
            self.files[step.name] = step.file
        else:
            if self.files.get(step.name) == step.file:
                del self.files[step.name]
            if step.kind == "rename":
                self.files[step.target] = step.file

    def _write_torn(self, step: Step, chances: Chances) -> None:
        if chances.keeps_sector():
            # The length may be kept without the bytes, which then read as zeros.
            content = self._content(step.file)
            content.extend(bytes(max(0, step.offset + len(step.data) - len(content))))
        position = 0
        while position < len(step.data):
            end = position + SECTOR - (step.offset + position) % SECTOR
            if chances.keeps_sector():
                self._write(step.file, step.offset + position, step.data[position:end])
            position = end

    def _write(self, file: int, offset: int, data: bytes) -> None:
        content = self._content(file)
        content.extend(bytes(max(0, offset - len(content))))
        content[offset : offset + len(data)] = data

    def _content(self, file: int) -> bytearray:
        return self.contents.setdefault(file, bytearray())

    def make(self, target: Path) -> None:
        target.mkdir(parents=True)
        for name in sorted(self.folders - {""}):
            if (target / name).parent.is_dir():
                (target / name).mkdir(exist_ok=True)
        for name, file in self.files.items():
            path = target / name
            if path.parent.is_dir():
                path.write_bytes(self._content(file))
