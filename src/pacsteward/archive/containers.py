"""Opening the bytes that a location names, while nobody takes them away.

A segment of the landing log may be used anew once nothing in it is needed. Whoever reads holds a
shared ``flock`` on it, which the recycler must get exclusively; and compares the generation before
and after, so that a read that came too late is noticed and not believed.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from pacsteward.archive.file_range import FileRange
from pacsteward.archive.model import Location
from pacsteward.archive.segment import read_generation, segment_path
from pacsteward.archive.storage.local import object_path
from pacsteward.base.errors import NotFound, WouldWait


def container_path(data_folder: Path, location: Location) -> Path:
    """Return the path of the file that holds a location.

    Raises
    ------
    ValueError
        The location is not one that the archive has written.
    """
    return Path(_path_text(data_folder, location.container_kind, location.container))


# Each frame of a series asks for the same path, and to join one takes longer than to open it.
@lru_cache(maxsize=256)
def _path_text(data_folder: Path, kind: str, container: str) -> str:
    if kind == "landing":
        return str(segment_path(data_folder / "landing", container))
    if kind == "object":
        return str(object_path(data_folder, container))
    raise ValueError(f"There is no container of kind {kind!r}.")


class opened:  # noqa: N801 - a context manager; as a generator it takes three times as long
    """Give a descriptor of the container, leased until the block ends.

    Raises
    ------
    NotFound
        The container is gone, or holds something else by now.
    WouldWait
        The recycler has the container, and the caller may not wait for it.
    """

    __slots__ = ("_descriptor", "_location", "_may_wait", "_path")

    def __init__(self, data_folder: Path, location: Location, *, may_wait: bool = True) -> None:
        self._path = _path_text(data_folder, location.container_kind, location.container)
        self._location = location
        self._may_wait = may_wait
        self._descriptor = -1

    def __enter__(self) -> int:
        location = self._location
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            raise _gone(location, "The file is not there.") from None
        try:
            if location.container_kind == "landing":
                _lease(descriptor, may_wait=self._may_wait)
                _check_generation(descriptor, location)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return descriptor

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None and self._location.container_kind == "landing":
                _check_generation(self._descriptor, self._location)
        finally:
            os.close(self._descriptor)


@contextmanager
def stored_data(data_folder: Path, location: Location) -> Iterator[FileRange]:
    """Give the data set at a location, read as it is asked for.

    Raises
    ------
    NotFound
        It is gone, or the container is shorter than it.
    """
    with opened(data_folder, location) as descriptor:
        if os.fstat(descriptor).st_size < location.offset + location.length:
            raise _gone(location, "The file is shorter than the instance in it.")
        yield FileRange(descriptor, location.offset, location.length)


def _lease(descriptor: int, *, may_wait: bool) -> None:
    if may_wait:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        # The head, which is read next, has to be in memory too.
        os.preadv(descriptor, [bytearray(1)], 0, os.RWF_NOWAIT)
    except OSError:
        raise WouldWait from None


def _check_generation(descriptor: int, location: Location) -> None:
    if read_generation(descriptor) != location.generation:
        raise _gone(location, "The segment has been used anew.")


def _gone(location: Location, why: str) -> NotFound:
    return NotFound(
        f"The stored bytes in {location.container_kind} {location.container} are gone.",
        why=why,
        remedy="Run `pacsteward archive verify` and restore what it names from the backup.",
    )
