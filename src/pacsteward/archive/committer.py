"""Writes what came in, syncs it, and lets each sender go when its object is safe.

Two threads share the work, so that the disk is never waited for twice::

    tickets ─▶ writer: asks the arbiter, writes the records of all that are ready
                 └▶ syncer: one sync for all that were written meanwhile, then the answers

What another process hands over is written by the thread that reads it from there (`carry_on`), in
the writer's place: to wake the writer would take longer than to write a small instance.

While one batch is being synced the next is written behind it. The syncer takes whatever is there:
so four senders share the price of a sync.

What failed is answered with the failure; it is never tried again here, since the sender will, and a
second sync of the same file proves nothing (`disk.py`). A failed sync takes with it all that was
written behind it to the same segment. So a segment is left in two ways only: by the writer when all
that was written is safe, and by the syncer, after a failure, while the writer does not write.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
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

TURNS_MAX: Final = 2
"""Batches that a thread writes in the writer's place before it goes on with its own work."""

_NOT_STORED: Final = "The instance was not stored."

_log = logging.getLogger(__name__)

Written = tuple[Ticket, Landed]


class Committer:
    """Writes tickets to the landing log.

    Parameters
    ----------
    landing
        Open; used by the threads of this alone from now on.
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
        self._handed_in: deque[Ticket] = deque()
        """For whoever carries on."""
        self._turn = threading.Lock()
        """Held by the thread that writes."""
        self._is_wanted = False
        """Whether the writer waits for its turn; it takes then what was handed in, too."""
        self._unindexed: dict[int, Ticket] = {}
        self._arbiter: Arbiter | None = None
        self._refused = _RefusedFiles(objects)
        self._gate = threading.Lock()
        self._has_ended = False
        self._state = threading.Condition()
        self._written: list[Written] = []
        """Written and not being synced yet; with the three below, guarded by `_state`."""
        self._is_writing = False
        self._is_syncing = False
        self._is_complete = False
        """Nothing more will be written."""
        self._writer = threading.Thread(target=self._write_on, name="writer", daemon=True)
        self._syncer = threading.Thread(target=self._sync_on, name="syncer", daemon=True)

    def start(self, arbiter: Arbiter) -> None:
        """Begin to write."""
        self._arbiter = arbiter
        self._writer.start()
        self._syncer.start()

    def stop(self) -> None:
        """Write what was handed in, and end."""
        self._queue.put(None)
        for thread in (self._writer, self._syncer):
            if thread.is_alive():
                thread.join()

    def submit(self, ticket: Ticket) -> None:
        """Take an instance; its future gets the answer."""
        with self._gate:
            if not self._has_ended:
                self._queue.put(ticket)
                return
        self._fail([ticket], _closing())

    def hand_in(self, ticket: Ticket) -> None:
        """Take an instance as `submit` does, for the thread that calls `carry_on` then."""
        with self._gate:
            if not self._has_ended:
                self._handed_in.append(ticket)
                return
        self._fail([ticket], _closing())

    def carry_on(self) -> None:
        """Write what was handed in; where another thread is just writing, that one does it then.

        So after each turn there may be something that came during it. It is written here as well,
        but not for ever: who calls this has others to read for, and the writer waits.
        """
        for _ in range(TURNS_MAX):
            if not self._handed_in or self._is_wanted or not self._turn.acquire(blocking=False):
                return
            try:
                self._write_batch(self._take_handed_in())
            finally:
                self._turn.release()
        self._leave_to_writer()

    def _leave_to_writer(self) -> None:
        """Have the writer write what came during the last turn."""
        with suppress(IndexError):
            while True:
                self.submit(self._handed_in.popleft())

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

    # --- the writer -------------------------------------------------------------------------

    def _write_on(self) -> None:
        is_last = False
        while not is_last:
            batch, is_last = self._take_submitted()
            # A lock is not given to who has waited longest: the others are asked to let it be.
            self._is_wanted = True
            with self._turn:
                self._is_wanted = False
                self._write_batch([*batch, *self._take_handed_in()])
            self._leave_to_writer()
        self._fail(self._close_gate(), _closing())
        with self._state:
            self._is_complete = True
            self._state.notify_all()

    def _close_gate(self) -> list[Ticket]:
        """Take nothing more; return what came behind the end."""
        with self._turn, self._gate:
            self._has_ended = True
            left = list(self._handed_in)
            self._handed_in.clear()
            while not self._queue.empty():
                ticket = self._queue.get()
                if ticket is not None:
                    left.append(ticket)
        return left

    def _take_submitted(self) -> tuple[list[Ticket], bool]:
        """Wait for a ticket, take all that are ready with it, and say whether it was the last."""
        batch = _Batch()
        ticket = self._queue.get()
        while ticket is not None:
            batch.add(ticket)
            if batch.is_full:
                return batch.tickets, False
            try:
                ticket = self._queue.get_nowait()
            except queue.Empty:
                return batch.tickets, False
        return batch.tickets, True

    def _take_handed_in(self) -> list[Ticket]:
        """Take what was handed in, as much as makes a batch."""
        batch = _Batch()
        # Until there is none: another thread may leave some to the writer meanwhile.
        with suppress(IndexError):
            while not batch.is_full:
                batch.add(self._handed_in.popleft())
        return batch.tickets

    def _write_batch(self, batch: Sequence[Ticket]) -> None:
        """Write those of a batch that the arbiter lets through; it takes care of the others."""
        assert self._arbiter is not None
        # Who waited for another one of its UID may have been told of a failure with that one.
        batch = [ticket for ticket in batch if not ticket.is_answered]
        unwritten = list(batch)
        try:
            unwritten = self._arbiter.screen(batch)
            if unwritten:
                self._write(unwritten)
        except Exception as error:  # noqa: BLE001
            # The thread must outlive whatever one batch does to it.
            if isinstance(error, PacstewardError):
                _log.error("The landing log could not be written. %s", error)
            else:
                _log.exception("A batch of %d instances was not stored.", len(batch))
            try:
                self._leave_segment()
            finally:
                self._fail(unwritten, _broken(error))

    def _leave_segment(self) -> None:
        """Have nothing more follow in the segment of a write that failed."""
        with self._state:
            self._await_quiet()
            self._landing.retire()

    def _write(self, tickets: list[Ticket]) -> None:
        """Write tickets; those that the syncer has are taken from the list."""
        with self._state:
            self._is_writing = True
        try:
            self._append_all(tickets)
        finally:
            with self._state:
                self._is_writing = False
                self._state.notify_all()

    def _append_all(self, tickets: list[Ticket]) -> None:
        """Write what can be written, then raise why the rest could not."""
        added: list[Written] = []
        failure: PacstewardError | None = None
        for ticket in list(tickets):
            if self._landing.must_turn_over(_in_log_bytes(ticket) + len(ticket.file_meta)):
                # The next segment cuts off what is not safe in this one.
                self._give_to_syncer(added, tickets)
                self._let_syncer_finish()
            try:
                added.append((ticket, self._append(ticket)))
            except PacstewardError as error:
                failure = error
                break
        self._give_to_syncer(added, tickets)
        if failure is not None:
            raise failure

    def _give_to_syncer(self, added: list[Written], tickets: list[Ticket]) -> None:
        """Write what was added to the log, and let the syncer have it."""
        with disk.speaking(_NOT_STORED):
            self._landing.write()
        with self._state:
            self._written += added
            self._state.notify_all()
        del tickets[: len(added)]
        added.clear()

    def _let_syncer_finish(self) -> None:
        with self._state:
            self._is_writing = False
            self._state.notify_all()
            self._await_quiet()
            self._is_writing = True

    def _await_quiet(self) -> None:
        """Wait until all that was written is safe or has failed; `_state` is held."""
        while self._is_syncing or self._written:
            self._state.wait()

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

    # --- the syncer -------------------------------------------------------------------------

    def _sync_on(self) -> None:
        while batch := self._next_batch():
            number = self._landing.segment_number
            failure = self._sync(self._landing.descriptor)
            with self._state:
                if failure is None:
                    self._landing.mark_safe(batch[-1][1].sequence)
                else:
                    while self._is_writing:
                        self._state.wait()
                    self._landing.retire()
                    batch += self._written
                    self._written = []
                self._is_syncing = False
                self._state.notify_all()
            if failure is None:
                self._answer_safe(batch, number)
            else:
                self._fail([ticket for ticket, _ in batch], failure)

    def _next_batch(self) -> list[Written]:
        """Wait for something that was written, and take it; nothing comes after the end."""
        with self._state:
            while not self._written and not self._is_complete:
                self._state.wait()
            batch, self._written = self._written, []
            self._is_syncing = bool(batch)
        return batch

    def _sync(self, descriptor: int) -> PacstewardError | None:
        """Sync; return why it failed."""
        try:
            with disk.speaking(_NOT_STORED):
                disk.sync(descriptor)
        except PacstewardError as error:
            _log.error("The landing log could not be synced. %s", error)
            return error
        except Exception as error:  # noqa: BLE001
            _log.exception("The landing log could not be synced.")
            return _broken(error)
        return None

    def _answer_safe(self, written: Sequence[Written], segment_number: int) -> None:
        """Tell the arbiter, the indexer and the senders of what is safe."""
        assert self._arbiter is not None
        landed = []
        for ticket, one in written:
            ticket.is_safe = True
            landed.append(one)
        waiting: list[Ticket] = []
        try:
            waiting = self._arbiter.landed(written)
            if self._waits_for_index:
                self._unindexed.update((one.sequence, ticket) for ticket, one in written)
            self._watermark.landed = landed[-1].sequence
            self._follow(landed)
            if not self._waits_for_index:
                with disk.speaking(_NOT_STORED):
                    faults.reach("before-answer")
                release([(ticket, _result(ticket)) for ticket, _ in written])
        except Exception as error:  # noqa: BLE001
            # They are safe, and a sender that sends one again is told that it is here.
            _log.exception("The senders of %d instances could not be answered.", len(written))
            self._fail([ticket for ticket, _ in written], _broken(error))
        finally:
            self._arbiter.resubmit(waiting)
        self._refused.discard_before(segment_number)

    def _fail(self, tickets: Sequence[Ticket], error: PacstewardError) -> None:
        assert self._arbiter is not None
        for ticket in tickets:
            container = ticket.description.object_container
            if container and not ticket.is_safe:
                self._refused.put_aside(container, self._landing.segment_number)
        release([(ticket, error) for ticket in tickets])
        for ticket in tickets:
            self._arbiter.settled(ticket)


class _Batch:
    """Tickets that are written together, with one sync."""

    def __init__(self) -> None:
        self.tickets: list[Ticket] = []
        self._size_bytes = 0

    def add(self, ticket: Ticket) -> None:
        self.tickets.append(ticket)
        self._size_bytes += _in_log_bytes(ticket)

    @property
    def is_full(self) -> bool:
        return len(self.tickets) >= BATCH_MAX or self._size_bytes >= BATCH_BYTES_MAX


def _in_log_bytes(ticket: Ticket) -> int:
    """Return how much of a data set goes to the log; that of a big object has its own file."""
    return ticket.size_bytes if ticket.data else 0


class _RefusedFiles:
    """Files of big objects whose record failed.

    Until another segment is begun such a record might count after a restart (`landing.py`), and its
    file with it. So they wait for that.
    """

    def __init__(self, objects: LocalObjects) -> None:
        self._objects = objects
        self._waiting: list[tuple[str, int]] = []
        """With the number of the segment in which the record failed."""

    def put_aside(self, container: str, segment_number: int) -> None:
        """Take a file from among those that are stored."""
        self._waiting.append((container, segment_number))
        with _logged("A big object that was not stored could not be put aside."):
            self._objects.take_back(container)

    def discard_before(self, segment_number: int) -> None:
        """Remove those whose record failed in an earlier segment, now that this one has begun."""
        for one in list(self._waiting):
            container, failed_in = one
            if failed_in < segment_number:
                self._waiting.remove(one)
                with _logged("A big object that was not stored could not be removed."):
                    self._objects.discard(container)


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
