"""Collects audit entries for a moment and records many of them in one transaction.

An entry of its own costs a third of a millisecond; a hundred together cost little more than one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from pacsteward.base import log
from pacsteward.base.errors import PacstewardError
from pacsteward.security.audit_entry import AuditEntry

DELAY_S = 0.1
BATCH_MAX = 500
WAITING_MAX = 10_000
"""When the database does not keep up, whoever wants to record waits for it from here on."""
REFUSALS_MAX = 1_000
"""With more than this, refusals do not wait: strangers must not take the room of those inside."""

_log = log.named(__name__)


class Later:
    """A queue with one thread that empties it; the thread begins with the first entry.

    Parameters
    ----------
    record
        Records a batch, in its order.
    """

    def __init__(self, record: Callable[[Sequence[AuditEntry]], None]) -> None:
        self._record = record
        self._waiting: list[AuditEntry] = []
        self._state = threading.Condition()
        self._recording = threading.Lock()
        self._thread: threading.Thread | None = None

    def put(self, entry: AuditEntry) -> None:
        """Take an entry; it is recorded within `DELAY_S`. Never waits: see `make_room`."""
        with self._state:
            self._waiting.append(entry)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
                self._thread.start()
            # The thread is woken to begin to wait and to stop waiting, not by all in between.
            if len(self._waiting) in (1, BATCH_MAX):
                self._state.notify()

    @property
    def is_crowded(self) -> bool:
        """Whether `make_room` would wait."""
        return len(self._waiting) >= WAITING_MAX

    def make_room(self) -> None:
        """Record what waits, if it is very much, before there is more; raises what `record` does.

        Before, since what is done need not be undone then: nobody is refused an answer that an
        entry says was given, and what cannot be written down does not become ever more.
        """
        if self.is_crowded:
            self.flush()

    @property
    def waiting(self) -> int:
        """How many entries wait."""
        return len(self._waiting)

    def flush(self) -> int:
        """Record all that waits, and what another thread is just recording; return how many.

        Not what comes meanwhile: while many ask it would never be done, each time with a
        transaction for the few that came during the last one.
        """
        with self._recording:
            left = waited = len(self._waiting)
            while left > 0:
                # They wait until they are recorded. Taken out before and put back after a failure,
                # they would be missed by the thread, which had just been woken for them.
                batch = self._waiting[:BATCH_MAX]
                self._record(batch)
                with self._state:
                    del self._waiting[: len(batch)]
                left -= len(batch)
            return waited

    def close(self) -> None:
        """Record all that waits, and what comes meanwhile: whoever still puts has to end soon."""
        while self.flush():
            pass

    def _run(self) -> None:
        while True:
            with self._state:
                self._state.wait_for(lambda: bool(self._waiting))
                self._state.wait_for(lambda: len(self._waiting) >= BATCH_MAX, DELAY_S)
            try:
                self.flush()
            except PacstewardError as error:
                # The database is away. Nothing is lost yet: the entries wait, and so do we.
                _log.warning("audit_waits", why=str(error), entries=len(self._waiting))
                with self._state:
                    self._state.wait(1.0)
