"""The one thread that writes what came in, and lets each sender go when it is safe.

It takes all that is ready, has the arbiter look at it, writes the records one behind the other,
syncs once, and then answers: so four senders share the price of a sync. What failed is answered
with the failure; it is never tried again here, since the sender will, and a second sync of the same
file proves nothing (`disk.py`).
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from pacsteward.archive import disk
from pacsteward.archive.arbiter import Arbiter
from pacsteward.archive.landing import Landed, Landing
from pacsteward.archive.model import Outcome
from pacsteward.archive.storage.local import LocalObjects
from pacsteward.archive.ticket import Answer, Ticket, release
from pacsteward.archive.watermark import Watermark
from pacsteward.base import faults
from pacsteward.base.errors import Broken, PacstewardError, Unavailable

BATCH_MAX: Final = 256
BATCH_BYTES_MAX: Final = 64 << 20
"""More than this in one sync would keep the first of the batch waiting too long."""

_NOT_STORED: Final = "The instance was not stored."

_log = logging.getLogger(__name__)

Written = tuple[Ticket, Landed]


class Committer:
    """Writes tickets to the landing log.

    Parameters
    ----------
    landing
        Open; used by this thread alone from now on.
    follow
        Given what is safe, in order: the indexer.
    waits_for_index
        Whether Success waits until the index has the instance, too.
    """

    def __init__(
        self,
        landing: Landing,
        objects: LocalObjects,
        watermark: Watermark,
        *,
        follow: Callable[[Sequence[Landed]], None],
        waits_for_index: bool = False,
    ) -> None:
        self._landing = landing
        self._objects = objects
        self._watermark = watermark
        self._follow = follow
        self._waits_for_index = waits_for_index
        self._queue: queue.SimpleQueue[Ticket | None] = queue.SimpleQueue()
        self._unindexed: dict[int, Ticket] = {}
        self._arbiter: Arbiter | None = None
        self._doubtful: list[str] = []
        self._gate = threading.Lock()
        self._has_ended = False
        self._thread = threading.Thread(target=self._run, name="committer", daemon=True)

    def start(self, arbiter: Arbiter) -> None:
        """Begin to write."""
        self._arbiter = arbiter
        self._thread.start()

    def stop(self) -> None:
        """Write what was handed in, and end."""
        self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join()

    def submit(self, ticket: Ticket) -> None:
        """Take an instance; its future gets the answer."""
        with self._gate:
            if not self._has_ended:
                self._queue.put(ticket)
                return
        self._fail([ticket], _closing())

    def answer(self, ticket: Ticket, answer: Answer) -> None:
        """Give a ticket an answer that needs no writing; from any thread."""
        if ticket.description.object_container:
            self._objects.discard(ticket.description.object_container)
        release([(ticket, answer)])

    def indexed(self, landed: Sequence[Landed], clashed: Sequence[Landed]) -> None:
        """Let those go that waited for the index; called by the indexer."""
        if not self._waits_for_index:
            return
        conflicts = {one.sequence for one in clashed}
        answers: list[tuple[Ticket, Answer]] = []
        for one in landed:
            ticket = self._unindexed.pop(one.sequence, None)
            if ticket is not None:
                answers.append((ticket, _result(ticket, has_clashed=one.sequence in conflicts)))
        release(answers)

    def give_up_waiting(self) -> None:
        """Answer those who still wait for the index when the archive is stopped.

        Their instances are safe and will be indexed at the next start; a sender that sends one
        again is told that it is here.
        """
        waiting, self._unindexed = list(self._unindexed.values()), {}
        release([(ticket, _closing()) for ticket in waiting])

    # --- the thread -------------------------------------------------------------------------

    def _run(self) -> None:
        is_last = False
        while not is_last:
            batch, is_last = self._take()
            self._commit(batch)
        with self._gate:
            self._has_ended = True
            while not self._queue.empty():
                ticket = self._queue.get()
                if ticket is not None:
                    self._fail([ticket], _closing())

    def _take(self) -> tuple[list[Ticket], bool]:
        """Wait for a ticket, and take all that are ready with it."""
        batch: list[Ticket] = []
        size_bytes = 0
        ticket = self._queue.get()
        while ticket is not None:
            batch.append(ticket)
            size_bytes += ticket.size_bytes if ticket.data else 0
            if len(batch) >= BATCH_MAX or size_bytes >= BATCH_BYTES_MAX:
                return batch, False
            try:
                ticket = self._queue.get_nowait()
            except queue.Empty:
                return batch, False
        return batch, True

    def _commit(self, batch: Sequence[Ticket]) -> None:
        assert self._arbiter is not None
        ready: list[Ticket] = []
        try:
            ready = self._arbiter.screen(batch)
            if ready:
                self._write_and_answer(ready)
        except Exception as error:  # noqa: BLE001
            # The thread must outlive whatever one batch does to it.
            _log.exception("A batch of %d instances was not stored.", len(batch))
            self._landing.retire()
            self._fail(ready or batch, _broken(error))

    def _write_and_answer(self, tickets: Sequence[Ticket]) -> None:
        assert self._arbiter is not None
        written, failure = self._write(tickets)
        if written:
            landed = [one for _, one in written]
            for ticket, _ in written:
                ticket.is_safe = True
            self._arbiter.landed(landed)
            if self._waits_for_index:
                self._unindexed.update((one.sequence, ticket) for ticket, one in written)
            self._watermark.landed = landed[-1].sequence
            self._follow(landed)
            if not self._waits_for_index:
                with disk.speaking(_NOT_STORED):
                    faults.reach("before-answer")
                release([(ticket, _result(ticket)) for ticket, _ in written])
            for ticket, _ in written:
                self._arbiter.settled(ticket)
            self._discard_doubtful()
        if failure is not None:
            safe = {ticket for ticket, _ in written}
            self._fail([ticket for ticket in tickets if ticket not in safe], failure)

    def _write(self, tickets: Sequence[Ticket]) -> tuple[list[Written], PacstewardError | None]:
        """Write and sync; return what is safe, and why the rest is not."""
        written: list[Written] = []
        failure: PacstewardError | None = None
        for ticket in tickets:
            try:
                written.append((ticket, self._append(ticket)))
            except PacstewardError as error:
                failure = error
                break
        try:
            self._landing.sync()
        except PacstewardError as error:
            failure = failure or error
        if failure is not None:
            _log.error("The landing log could not be written. %s", failure)
            self._landing.retire()
            safe_sequence = self._landing.safe_sequence
            written = [pair for pair in written if pair[1].sequence <= safe_sequence]
        return written, failure

    def _append(self, ticket: Ticket) -> Landed:
        container = ticket.description.object_container
        if container:
            with disk.speaking(_NOT_STORED):
                self._objects.keep(container)
        return self._landing.append(
            ticket.description,
            ticket.file_meta,
            ticket.data,
            size_bytes=ticket.size_bytes,
            checksum=ticket.checksum,
            header=ticket.header,
        )

    def _fail(self, tickets: Sequence[Ticket], error: PacstewardError) -> None:
        assert self._arbiter is not None
        for ticket in tickets:
            container = ticket.description.object_container
            if container and not ticket.is_safe:
                self._put_aside(container)
        release([(ticket, error) for ticket in tickets])
        for ticket in tickets:
            self._arbiter.settled(ticket)

    def _put_aside(self, container: str) -> None:
        self._doubtful.append(container)
        with _logged("A big object that was not stored could not be put aside."):
            self._objects.take_back(container)

    def _discard_doubtful(self) -> None:
        """Remove the files of big objects whose record failed.

        Until another segment was begun, such a record might have counted after a restart
        (`landing.py`), and its file with it. By now one was.
        """
        while self._doubtful:
            with _logged("A big object that was not stored could not be removed."):
                self._objects.discard(self._doubtful.pop())


@contextmanager
def _logged(what: str) -> Iterator[None]:
    """Go on after a failure to clean up: the next start does it."""
    try:
        yield
    except OSError as error:
        _log.warning("%s %s", what, error.strerror)


def _result(ticket: Ticket, *, has_clashed: bool = False) -> Answer:
    is_conflict = ticket.description.is_conflict or has_clashed
    return ticket.result(Outcome.CONFLICT if is_conflict else Outcome.STORED)


def _broken(error: Exception) -> PacstewardError:
    if isinstance(error, PacstewardError):
        return error
    return Broken(
        _NOT_STORED,
        why=f"{type(error).__name__} while it was written.",
        remedy="Send it again; if that fails, see the log.",
    )


def _closing() -> Unavailable:
    return Unavailable(
        _NOT_STORED, why="The archive is being stopped.", remedy="Send it again in a moment."
    )
