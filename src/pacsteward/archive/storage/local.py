"""Big objects as files of their own, on a local disk.

A big object is ``objects/3f/3f9c….dcm``: an ordinary Part 10 file (PS3.10 7.1) that any DICOM
program can open. While it arrives it is ``objects/incoming/3f9c….dcm``; it gets its place only
when it is whole and safe. What is in ``incoming`` after a crash was never acknowledged, unless the
log names it (`LocalObjects.settle`). Names are random, never taken from what is stored.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pacsteward.archive import disk
from pacsteward.archive.file_range import FileRange

_CONTAINER: Final = re.compile(r"[0-9a-f]{32}")

_log = logging.getLogger(__name__)


def object_path(data_folder: Path, container: str) -> Path:
    """Return the path of the file that a location names.

    Raises
    ------
    ValueError
        The name is not one of ours, so it must not become a path.
    """
    if not _CONTAINER.fullmatch(container):
        raise ValueError(f"{container!r} is not the name of an object.")
    return data_folder / "objects" / container[:2] / f"{container}.dcm"


class LocalObjects:
    """The folder ``DIR/objects``.

    Parameters
    ----------
    data_folder
        ``DIR``.
    """

    def __init__(self, data_folder: Path) -> None:
        self._data_folder = data_folder
        self._folder = data_folder / "objects"
        self._incoming = self._folder / "incoming"

    def prepare(self) -> None:
        """Make the folders, and have their names on the disk.

        Those of the objects' folders too: one that was made right before a crash is there, and
        nobody would sync its name again.
        """
        for folder in (self._folder, self._incoming):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        disk.sync_folder(self._folder)

    def begin(self) -> tuple[str, int]:
        """Open a new file in ``incoming``; return its name and descriptor."""
        container = secrets.token_hex(16)
        path = self._incoming_path(container)
        try:
            return container, disk.open_file(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        except OSError:
            self.discard(container)
            raise

    @contextmanager
    def incoming(self, container: str, offset: int = 0) -> Iterator[FileRange]:
        """Give the bytes of a file that has not got its place yet, from `offset` on."""
        descriptor = disk.open_file(self._incoming_path(container), os.O_RDONLY)
        try:
            yield FileRange(descriptor, offset)
        finally:
            os.close(descriptor)

    def keep(self, container: str) -> None:
        """Give a whole and synced file its place; return once that is safe."""
        target = object_path(self._data_folder, container)
        if not target.parent.is_dir():
            target.parent.mkdir(mode=0o700, exist_ok=True)
            disk.sync_folder(self._folder)
        disk.rename(self._incoming_path(container), target)
        disk.sync_folder(target.parent)

    def take_back(self, container: str) -> None:
        """Undo `keep`, because the log could not take the record.

        The file is not removed yet: the record may be on the disk after all, and count after the
        next start, which then finds its file here.
        """
        path = object_path(self._data_folder, container)
        if path.exists():
            disk.rename(path, self._incoming_path(container))

    def discard(self, container: str) -> None:
        """Remove a file that never got its place; what fails is done at the next start.

        The sender waits for the reason why it was not stored, and a disk that refuses to remove a
        file must not take that reason's place.
        """
        try:
            self._incoming_path(container).unlink(missing_ok=True)
        except OSError as error:
            _log.warning("A file of an object that was not stored stays. %s", error.strerror)

    def remove(self, container: str) -> None:
        """Remove a stored object for good."""
        path = object_path(self._data_folder, container)
        path.unlink(missing_ok=True)
        if path.parent.is_dir():
            disk.sync_folder(path.parent)

    def settle(self, containers: Container[str]) -> None:
        """After a start: keep those of ``incoming`` that the log names, remove the others."""
        for name in os.listdir(self._incoming):
            container = name.removesuffix(".dcm")
            if not _CONTAINER.fullmatch(container):
                continue
            if container in containers:
                self.keep(container)
            else:
                self.discard(container)

    def containers(self) -> Iterator[str]:
        """List the stored objects; none where nothing was prepared yet."""
        if not self._folder.is_dir():
            return
        for folder in sorted(self._folder.iterdir()):
            if re.fullmatch(r"[0-9a-f]{2}", folder.name) and folder.is_dir():
                for path in sorted(folder.iterdir()):
                    if path.suffix == ".dcm" and _CONTAINER.fullmatch(path.stem):
                        yield path.stem

    def _incoming_path(self, container: str) -> Path:
        return self._incoming / f"{container}.dcm"
