"""A big object to a file of its own while it arrives, with bounded memory.

The pieces are written in order by a thread; the receiver goes on meanwhile. When the disk is slower
than the network, `is_behind` asks the receiver to pause, so little more than `AHEAD_MAX` bytes are
in memory. A receiver that does not ask is made to wait by `write`.
Every `SYNC_BYTES` the file is synced, so the last sync of a large object is short and does not hold
up everybody else's.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from concurrent.futures import Executor
from typing import Final

from pacsteward.archive import disk
from pacsteward.archive.storage.local import LocalObjects

AHEAD_MAX: Final = 16 << 20
WAITING_MAX: Final = 2 * AHEAD_MAX
SYNC_BYTES: Final = 64 << 20


class Spool:
    """One file that is being written.

    Parameters
    ----------
    executor
        Its threads do the writing.

    Raises
    ------
    OSError
        The file could not be made.
    """

    def __init__(self, objects: LocalObjects, executor: Executor) -> None:
        self._objects = objects
        self._executor = executor
        self.container, self._descriptor = objects.begin()
        self._offset = 0
        self._unsynced = 0
        self._waiting: deque[bytes | memoryview] = deque()
        self._waiting_bytes = 0
        self._is_running = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def write(self, piece: bytes | memoryview) -> None:
        """Take the next bytes; they stay unchanged until they are written."""
        with self._changed:
            if self._error is not None:
                return
            self._waiting.append(piece)
            self._waiting_bytes += len(piece)
            if not self._is_running:
                self._is_running = True
                self._executor.submit(self._drain)
            while self._waiting_bytes > WAITING_MAX:
                self._changed.wait()

    def is_behind(self) -> bool:
        """Whether the receiver should pause."""
        return self._waiting_bytes > AHEAD_MAX

    def finish(self) -> None:
        """Return once all bytes are on the disk; blocks.

        Raises
        ------
        OSError
            They are not.
        """
        try:
            self._settle()
            if self._error is not None:
                raise self._error
            disk.sync(self._descriptor)
        finally:
            os.close(self._descriptor)

    def abandon(self) -> None:
        """Leave nothing behind; blocks until the thread has let go."""
        self._settle()
        os.close(self._descriptor)
        self._objects.discard(self.container)

    def _settle(self) -> None:
        with self._changed:
            while self._is_running:
                self._changed.wait()

    def _drain(self) -> None:
        while True:
            with self._changed:
                pieces = list(self._waiting)
                self._waiting.clear()
                if not pieces:
                    self._is_running = False
                    self._changed.notify_all()
                    return
            try:
                if self._error is None:
                    self._write(pieces)
            except BaseException as error:  # noqa: BLE001 — `finish` raises it
                self._error = error
            with self._changed:
                self._waiting_bytes -= sum(map(len, pieces))
                self._changed.notify_all()

    def _write(self, pieces: list[bytes | memoryview]) -> None:
        end = disk.write_all(self._descriptor, pieces, self._offset)
        self._unsynced += end - self._offset
        self._offset = end
        if self._unsynced >= SYNC_BYTES:
            disk.sync(self._descriptor)
            self._unsynced = 0
