"""Trouble that is armed at the archive's fault points, and the end of a process.

Every thread of the simulated process passes `Fate.reach` at the named places of `base/faults.py`,
and before and after each commit. Where trouble is due, the disk fails there, or the process ends:
then nothing of it goes on, until the world has taken what is left of it and lets its threads run
out.
"""

from __future__ import annotations

import errno
import os
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal

Deed = Literal["the disk fails", "the disk is full", "the process is killed", "the power fails"]

ENDS: Final = frozenset({"the process is killed", "the power fails"})
_ERRNO: Final = {"the disk fails": errno.EIO, "the disk is full": errno.ENOSPC}

# An answer that is due cannot fail as a disk does: there, a process can only end.
_ONLY_ENDS: Final = frozenset({"before-answer"})


class Died(BaseException):
    """The process is no more; raised in whatever thread of it would go on."""


@dataclass(slots=True)
class Trouble:
    """Something that happens the `first`-th time that a fault point is passed.

    Parameters
    ----------
    lasts
        Whether it happens at every later point, too.
    """

    deed: Deed
    first: int
    lasts: bool = False
    seen: int = 0
    struck_at: str = ""


class Fate:
    """What happens to one process; shared by all its threads."""

    def __init__(self) -> None:
        self.news: queue.SimpleQueue[str] = queue.SimpleQueue()
        """Told when an act is done and when the process ends."""
        self.is_dead = False
        self.ended_by: Deed | None = None
        self._armed: Trouble | None = None
        self._lock = threading.Lock()
        self._burial = threading.Event()

    @contextmanager
    def armed(self, trouble: Trouble | None) -> Iterator[None]:
        """Have `trouble` happen within the block."""
        self._armed = trouble
        try:
            yield
        finally:
            self._armed = None

    def reach(self, point: str) -> None:
        """Pass a fault point; takes the place of `faults.reach`."""
        self.go_on()
        with self._lock:
            deed = self._due(point)
        if deed is None:
            return
        if deed not in ENDS:
            number = _ERRNO[deed]
            raise OSError(number, f"{os.strerror(number)} (a simulated one)")
        self._die(deed)

    def go_on(self) -> None:
        """Return if the process lives; what is dead stays where it is, and ends there."""
        if self.is_dead:
            self._burial.wait()
            raise Died

    def bury(self) -> None:
        """Let the threads of a dead process end."""
        self.is_dead = True
        self._burial.set()

    def _due(self, point: str) -> Deed | None:
        trouble = self._armed
        if trouble is None or (point in _ONLY_ENDS and trouble.deed not in ENDS):
            return None
        trouble.seen += 1
        is_due = trouble.seen == trouble.first or (trouble.lasts and trouble.seen > trouble.first)
        if not is_due:
            return None
        trouble.struck_at = trouble.struck_at or point
        return trouble.deed

    def _die(self, deed: Deed) -> None:
        self.ended_by = deed
        self.is_dead = True
        self.news.put("died")
        self.go_on()
