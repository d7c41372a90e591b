"""Who may claim a UID, decided before the acknowledgement.

A SOP Instance UID names one object for ever (PS3.5 9.1). Machines break that in two harmless ways
and one dangerous one: they send the same object again, they send it in another transfer syntax, and
they send another object under a UID that is taken. So an instance that comes in is looked up in the
index, in the tail of the log that is not indexed yet, and among those that are being written:

- unknown: it is stored;
- known, with the same content: Success, without a second copy;
- known, with other content: both are kept, the sender is warned, a human sees a conflict. The same
  second content again is not kept a third time.

A UID whose instance was deleted is unknown again. One whose instance was rejected stays rejected:
the bytes are here, so the sender gets Success, with a warning; only a human shows it again.

The ordinary unknown UID lies in a gap of the index that was seen before (`gaps.py`), or costs its
share of one look-up for a whole batch. Everything else is compared in threads of its own and comes
back to the committer with the verdict. While one instance of a UID is on its way the others wait
for it.

References
----------
PS3.4 B.2.3 (statuses of C-STORE); IHE RAD TF-3 4.66.4.1.3 (rejected instances stay hidden).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from pacsteward.archive import disk
from pacsteward.archive.containers import stored_data
from pacsteward.archive.gaps import SHARED_S, Gaps
from pacsteward.archive.known import Known, TakenUids, known_conflicts, known_instances
from pacsteward.archive.landing import Landed
from pacsteward.archive.model import Outcome
from pacsteward.archive.sameness import is_same_bytes, is_same_object
from pacsteward.archive.storage.local import LocalObjects
from pacsteward.archive.ticket import Answer, Ticket
from pacsteward.base.db import Database
from pacsteward.base.errors import Broken, NotFound, PacstewardError
from pacsteward.dicom.fragments import Fragments
from pacsteward.dicom.transcode import FrameCoder, transcode_frame

_COMPARERS: Final = 2

_log = logging.getLogger(__name__)


class Arbiter:
    """Decides on tickets.

    Parameters
    ----------
    data_folder
        ``DIR``, where stored bytes are read to be compared.
    resubmit
        Puts a ticket back into the committer's queue.
    answer
        Gives a ticket its answer.
    make_up
        Has the index say what was decided; called before anybody is told what is stored.
    code_frame
        Decodes frames when an object came in another transfer syntax; in the server a child
        process does it.
    must_ask
        Whether the index is asked for every UID, also for one that is surely new. Where Success
        waits for the index a sender must be refused while that is away, not kept waiting.
    """

    def __init__(
        self,
        data_folder: Path,
        database: Database,
        objects: LocalObjects,
        *,
        resubmit: Callable[[Ticket], None],
        answer: Callable[[Ticket, Answer], None],
        make_up: Callable[[], None] = lambda: None,
        code_frame: FrameCoder = transcode_frame,
        must_ask: bool = False,
    ) -> None:
        self._data_folder = data_folder
        self._database = database
        self._taken = TakenUids(database)
        self._gaps = Gaps(self._on_their_way, good_for_s=None if database.is_sqlite else SHARED_S)
        self._must_ask = must_ask
        self._objects = objects
        self._resubmit = resubmit
        self._answer = answer
        self._make_up = make_up
        self._code_frame = code_frame
        self._lock = threading.Lock()
        self._claims: dict[str, list[Ticket]] = {}
        """Tickets that wait, by UID, for the one that is on its way."""
        self._tail: dict[str, list[Landed]] = {}
        """What landed and is not indexed yet, by UID, in order."""
        self._comparers = ThreadPoolExecutor(_COMPARERS, thread_name_prefix="arbiter")

    def close(self) -> None:
        """End the threads, when what they compare has its answer."""
        self._comparers.shutdown(wait=True)
        self._taken.close()

    # --- for the committer ------------------------------------------------------------------

    def screen(self, tickets: Sequence[Ticket]) -> list[Ticket]:
        """Return those that are to be written now; the others are taken care of."""
        if not tickets:
            return []
        try:
            self._make_up()
        except PacstewardError as error:
            for ticket in tickets:
                self._settle(ticket, error)
            return []
        ready, asked, known = self._claim(tickets)
        if asked:
            self._ask(asked, ready, known)
        for ticket in known:
            self._comparers.submit(self._compare, ticket)
        self._gaps.let_through([ticket.description.sop_instance_uid for ticket in ready])
        return ready

    def _ask(self, asked: list[Ticket], ready: list[Ticket], known: list[Ticket]) -> None:
        """Ask the index for tickets, and add them to those that it lacks or those that it has."""
        asked_at = self._gaps.now()
        try:
            taken, gaps = self._taken.among([ticket.uid for ticket in asked])
        except PacstewardError as error:
            # Without the index nobody can say what a UID stands for.
            for ticket in asked:
                self._settle(ticket, error)
            return
        for ticket in asked:
            uid = ticket.uid
            (known if uid in taken else ready).append(ticket)
            if uid in gaps:
                self._gaps.learn(ticket.description.series_instance_uid, gaps[uid], asked_at)

    def _on_their_way(self) -> list[str]:
        with self._lock:
            return [*self._claims, *self._tail]

    def _claim(self, tickets: Sequence[Ticket]) -> tuple[list[Ticket], list[Ticket], list[Ticket]]:
        """Tell tickets with a verdict, those to be asked for in the index, and known ones."""
        ready: list[Ticket] = []
        asked: list[Ticket] = []
        known: list[Ticket] = []
        with self._lock:
            for ticket in tickets:
                if ticket.has_claim:
                    ready.append(ticket)
                    continue
                uid = ticket.description.sop_instance_uid
                if uid in self._claims:
                    self._claims[uid].append(ticket)
                    continue
                self._claims[uid] = []
                ticket.has_claim = True
                # The tail is asked before the index: an instance leaves it only after the index
                # has it, so it is never missed by both.
                if uid in self._tail:
                    known.append(ticket)
                elif not self._must_ask and self._gaps.has(
                    ticket.description.series_instance_uid, uid
                ):
                    ready.append(ticket)
                else:
                    asked.append(ticket)
        return ready, asked, known

    def landed(self, written: Sequence[tuple[Ticket, Landed]]) -> list[Ticket]:
        """Remember what is safe until `indexed` says that the index has it, and end its claims.

        Returns
        -------
        list of Ticket
            Those that waited for one of these; `resubmit` them when it has its answer.
        """
        waiting: list[Ticket] = []
        tail, claims = self._tail, self._claims
        with self._lock:
            for ticket, one in written:
                uid = one.description.sop_instance_uid
                tail.setdefault(uid, []).append(one)
                ticket.has_claim = False
                waiting += claims.pop(uid, ())
        return waiting

    def indexed(self, landed: Iterable[Landed]) -> None:
        """Forget what the index has now."""
        with self._lock:
            for one in landed:
                uid = one.description.sop_instance_uid
                left = [
                    other for other in self._tail.get(uid, ()) if other.sequence != one.sequence
                ]
                if left:
                    self._tail[uid] = left
                else:
                    self._tail.pop(uid, None)

    def settled(self, ticket: Ticket) -> None:
        """End a ticket's claim, whatever became of it; the next one of its UID gets its turn."""
        with self._lock:
            if not ticket.has_claim:
                return
            ticket.has_claim = False
            waiting = self._claims.pop(ticket.uid, [])
        self.resubmit(waiting)

    def resubmit(self, tickets: Iterable[Ticket]) -> None:
        """Give those that waited for another one of their UID their turn."""
        for ticket in tickets:
            self._resubmit(ticket)

    # --- comparing --------------------------------------------------------------------------

    def _compare(self, ticket: Ticket) -> None:
        """Find out which of the contents under its UID a ticket is; runs in a thread."""
        try:
            verdict = self._verdict(ticket)
        except PacstewardError as error:
            self._settle(ticket, error)
        except OSError as error:
            self._settle(ticket, disk.translated(error, f"Instance {ticket.uid} was not stored."))
        except Exception:  # noqa: BLE001 — nobody waits for this thread
            _log.exception("Instance %s could not be compared.", ticket.uid)
            self._settle(
                ticket,
                Broken(
                    f"Instance {ticket.uid} was not stored.",
                    why="It could not be compared with what is stored under its UID.",
                    remedy="Send it again; if that fails, see the log.",
                ),
            )
        else:
            if verdict is None:
                self._resubmit(ticket)
            else:
                self._settle(ticket, verdict)

    def _settle(self, ticket: Ticket, answer: Answer) -> None:
        self._answer(ticket, answer)
        self.settled(ticket)

    def _verdict(self, ticket: Ticket) -> Answer | None:
        """Return the answer, or None for content that has to be stored."""
        first, others = self._contents(ticket.uid)
        if first is None and not others:
            # Deleted since the look-up.
            return None
        with ticket.content(self._objects) as data:
            if first is not None and self._is_same(ticket, data, first):
                if first.rejected_for:
                    return ticket.result(
                        Outcome.ALREADY_HERE,
                        f"It was rejected here ({first.rejected_for}) and stays hidden.",
                    )
                return ticket.result(Outcome.ALREADY_HERE)
            if any(self._is_same(ticket, data, other) for other in others):
                return ticket.result(Outcome.CONFLICT)
        if first is not None:
            ticket.mark_conflict()
        return None

    def _contents(self, uid: str) -> tuple[Known | None, list[Known]]:
        """Return the content that owns a UID, and others that are kept under it."""
        with self._lock:
            tail = list(self._tail.get(uid, ()))
        with self._database.read() as connection:
            first = known_instances(connection, [uid]).get(uid)
            others = known_conflicts(connection, [uid]).get(uid, [])
        for one in tail:
            known = Known(
                one.size_bytes,
                one.checksum,
                one.description.transfer_syntax_uid,
                one.location,
            )
            if one.description.is_conflict:
                others.append(known)
            elif first is None:
                first = known
        return first, others

    def _is_same(self, ticket: Ticket, data: Fragments, known: Known) -> bool:
        try:
            with stored_data(self._data_folder, known.location) as stored:
                is_alike = known.checksum == ticket.checksum
                if is_alike and is_same_bytes(stored, data):
                    return True
                return is_same_object(
                    stored,
                    known.transfer_syntax_uid,
                    data,
                    ticket.description.transfer_syntax_uid,
                    code_frame=self._code_frame,
                )
        except NotFound as error:
            # What we had is gone or damaged. What comes now may be the only whole copy: it is
            # kept beside, and a human sees both.
            _log.warning("Stored instance %s could not be read. %s", ticket.uid, error)
            return False
