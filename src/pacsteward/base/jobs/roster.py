"""Which processes run jobs, and which of them are gone.

A worker signs on with a row and moves its ``beat`` every few seconds. On the same machine the
kernel knows at once whether a process still lives, so after a crash its jobs go on as soon as a
worker starts. Another machine's worker counts as gone when its beat has not moved for half a
minute by our own monotonic clock: clocks of two machines need not agree, and one that is set
forward kills nobody.
"""

from __future__ import annotations

import os
import platform
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from pacsteward.base.clock import Clock
from pacsteward.base.jobs.tables import JOB_WORKER

BEAT_EVERY_S = 5.0
GONE_AFTER_S = 30.0
"""A worker of another machine whose beat stands still for so long is gone."""


@dataclass(slots=True)
class Roster:
    """The list of workers, as one of them keeps it.

    Parameters
    ----------
    clock
        For the moment that people are shown; decisions are made by `time.monotonic`.
    worker
        Our own name: machine, process and a random word.
    """

    clock: Clock
    worker: str = ""
    _machine: str = ""
    _seen: dict[str, tuple[int, float]] = field(default_factory=dict)

    def sign_on(self, connection: Connection) -> None:
        """Take a name and write it down; after the fork, since a child is another process."""
        self._machine = _machine()
        self.worker = f"{platform.node()[:40]}:{os.getpid()}:{secrets.token_hex(3)}"
        self._write_row(connection)

    def beat(self, connection: Connection) -> bool:
        """Show that we live; False when others had given us up and took our jobs."""
        found = connection.execute(
            update(JOB_WORKER)
            .where(JOB_WORKER.c.worker == self.worker)
            .values(beat=JOB_WORKER.c.beat + 1, seen_at=self.clock.now())
        )
        if found.rowcount == 1:
            return True
        self._write_row(connection)
        return False

    def sign_off(self, connection: Connection) -> None:
        """Leave; nothing of ours runs any more."""
        connection.execute(delete(JOB_WORKER).where(JOB_WORKER.c.worker == self.worker))

    def gone(self, connection: Connection) -> set[str]:
        """Return the names of workers that are on the list and do not live any more."""
        rows = connection.execute(select(JOB_WORKER).where(JOB_WORKER.c.worker != self.worker))
        return {row.worker for row in rows if self._is_gone(row)}

    def remove(self, connection: Connection, workers: set[str]) -> None:
        """Strike workers that are gone off the list."""
        connection.execute(delete(JOB_WORKER).where(JOB_WORKER.c.worker.in_(workers)))

    def _is_gone(self, row: Any) -> bool:
        if row.machine == self._machine:
            return _process_word(int(row.process.split(":")[0])) != str(row.process)
        now = time.monotonic()
        beat, since = self._seen.get(row.worker, (-1, now))
        if beat != row.beat:
            self._seen[row.worker] = (row.beat, now)
            return False
        return bool(now - since > GONE_AFTER_S)

    def _write_row(self, connection: Connection) -> None:
        connection.execute(
            insert(JOB_WORKER).values(
                worker=self.worker,
                machine=self._machine,
                process=_process_word(os.getpid()),
                seen_at=self.clock.now(),
            )
        )


def _machine() -> str:
    """Name what shares process numbers with us: this boot of this machine, and its container.

    Where that cannot be told, a random word: then only the beat decides.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        space = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return secrets.token_hex(16)
    return f"{boot}:{space}"


def _process_word(pid: int) -> str:
    """Name a process so that a later one with the same number has another name.

    The start time of field 22 counts from the boot, so it does not move with the clock
    (proc_pid_stat(5)). Field 2, the name, may hold spaces and brackets; it ends at the last one.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return f"{pid}:gone"
    fields = stat.rpartition(")")[2].split()
    is_dead = fields[0] in ("Z", "X")
    return f"{pid}:gone" if is_dead else f"{pid}:{fields[19]}"
