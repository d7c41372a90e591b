"""One life of the archive's process: born over a folder, ended by a stop, a kill or a power cut.

What the archive does, it does in threads: the committer, the indexer, the comparers of the arbiter,
one for each act. Here they take turns, so that a story does not depend on the machine it is told
on. An act runs while everything else waits; the indexer goes on only when the world lets it
(`catch_up`); what the archive does when it has time (announcing complete studies, telling facts,
running jobs, using segments anew) is done when the world asks for it.

A process that is killed is thrown away as it is. Its folder is copied in the state in which it was
left (a power cut takes its share of the copy), and the next life begins over the copy; only then
may the threads of the dead one run out, where they can do no harm.
"""

from __future__ import annotations

import asyncio
import queue
import random
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import wait
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeVar
from unittest import mock

from sqlalchemy import Engine

from pacsteward.archive import (
    Archive,
    ArchiveSettings,
    Space,
    committer,
    indexer,
    known,
    space,
    spares,
)
from pacsteward.archive.ticket import Ticket
from pacsteward.base import faults
from pacsteward.base.clock import ManualClock
from pacsteward.base.events import FactLog
from pacsteward.base.jobs import roster
from pacsteward.security import Actor, AuditBook
from pacsteward.security.audit_entry import AuditEntry, AuditEvent
from tests.simulation.database import FaultyDatabase
from tests.simulation.disk import Unsynced
from tests.simulation.trouble import Died, Fate

T = TypeVar("T")

_HANGS_S: Final = 120.0
_LAST_ENTRY: Final = AuditEntry(
    AuditEvent.APPLICATION_ACTIVITY, "E", Actor("house", "simulation", frozenset())
)
"""An act that takes longer, on however slow a machine, will never end."""


class Hangs(AssertionError):
    """An act does not come to its end."""


class Process:
    """The archive's process.

    Parameters
    ----------
    folder
        Its data folder.
    database_url
        PostgreSQL; None takes the embedded database in the folder.
    number
        Which life this is; a later one is another process.
    """

    def __init__(
        self,
        folder: Path,
        database_url: str | None,
        clock: ManualClock,
        settings: ArchiveSettings,
        number: int,
    ) -> None:
        self.folder = folder
        self.fate = Fate()
        self.database = FaultyDatabase(database_url or folder / "index.db", self.fate)
        self.facts = FactLog(clock)
        self.audit = AuditBook(self.database, clock)
        self.archive = Archive.as_keeper(
            folder, self.database, settings, clock, self.facts, self.audit
        )
        self.free_bytes = 1 << 40
        self.unsynced = Unsynced(folder)
        self.is_lagging = settings.acknowledge == "landed"
        """Whether the indexer waits until it is let."""
        self._number = number
        self._gate = threading.Event()
        self._hand = threading.Event()
        self._hand.set()
        self._tickets: list[Ticket] = []
        self._hang_up: Callable[[], object] = lambda: None
        self._threads_before = set(threading.enumerate())
        self._surroundings = ExitStack()
        self._surroundings.enter_context(self._world())

    @property
    def keeper(self) -> Any:
        """Return the archive's keeper."""
        return self.archive._keeper

    # --- acts -------------------------------------------------------------------------------

    def start(self) -> None:
        """Open the archive; an act, as `stop` and `catch_up` are."""
        keeper = self.keeper
        keeper.start()
        if self.is_lagging:
            keeper._indexer._linger = self._gate.wait
        submit = keeper._committer.submit

        def submit_and_note(ticket: Ticket) -> None:
            self._tickets.append(ticket)
            submit(ticket)

        keeper._committer.submit = submit_and_note

    def stop(self) -> None:
        """Close the archive as it should be closed."""
        self._gate.set()
        self.keeper.stop()

    def close(self) -> None:
        """Let go of everything; of a process that was stopped, or never started."""
        self._run_out()

    def threads_are_busy(self) -> bool:
        """Whether objects are still on their way to the committer."""
        return bool(self.keeper._threads._work_queue.qsize())

    def act(self, deed: Callable[[], T]) -> T:
        """Do something in a thread of the process, and return what came of it.

        Raises
        ------
        Died
            The process ended before it was done.
        """
        answer: dict[str, Any] = {}

        def work() -> None:
            try:
                answer["value"] = deed()
                self._rest()
            except BaseException as error:  # noqa: BLE001 — it is raised where it is waited for
                answer["error"] = error
            self.fate.news.put("done")

        thread = threading.Thread(target=work, name="act", daemon=True)
        thread.start()
        try:
            news = self.fate.news.get(timeout=_HANGS_S)
        except queue.Empty:
            raise Hangs(f"It does not come to an end.\n{_stacks()}") from None
        if news == "died":
            raise Died
        thread.join()
        if "error" in answer:
            raise answer["error"]
        value: T = answer["value"]
        return value

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on a loop of its own; for acts."""

        async def main() -> T:
            loop, task = asyncio.get_running_loop(), asyncio.current_task()
            assert task is not None
            self._hang_up = lambda: loop.call_soon_threadsafe(task.cancel)
            return await work

        return asyncio.run(main())

    def _rest(self) -> None:
        """Return when the threads that write big objects have nothing to do."""
        pool = vars(self.keeper).get("_threads")
        if pool is None or pool._shutdown:
            return
        barrier = threading.Barrier(pool._max_workers)
        wait([pool.submit(barrier.wait) for _ in range(pool._max_workers)])

    @contextmanager
    def together(self) -> Iterator[None]:
        """Have all that is handed in within the block committed at once, on any machine."""
        self._hand.clear()
        try:
            yield
        finally:
            self._hand.set()

    def catch_up(self) -> None:
        """Let the indexer take all that landed; returns when it has."""
        self._gate.set()
        try:
            self.keeper.watermark.wait_until_indexed(60.0)
        finally:
            if self.is_lagging:
                self._gate.clear()

    # --- the end ----------------------------------------------------------------------------

    def leave_behind(self, target: Path, chance: random.Random) -> None:
        """Copy what a dead process has left to `target`, and let its threads run out."""
        shutil.copytree(
            self.folder, target, ignore=shutil.ignore_patterns("*.db-shm", "keeper.sock", "*.sock")
        )
        if self.fate.ended_by == "the power fails":
            self.unsynced.lose(target, chance)
            self.database.lose(target, chance)
        self._run_out()
        shutil.rmtree(self.folder)

    def _run_out(self) -> None:
        self.fate.bury()
        self._gate.set()
        self._hand.set()
        keeper = self.keeper
        for ticket in self._tickets:
            _give_up(ticket)
        with suppress(RuntimeError):
            self._hang_up()
        parts = vars(keeper)
        # Whoever waits for the index waits no longer.
        self.archive._watermark.indexed = self.archive._watermark.landed
        if "_committer" in parts:
            keeper._committer._queue.put(None)
            with keeper._committer._state:
                # Its writer waits no longer for its syncer.
                keeper._committer._is_syncing, keeper._committer._written = False, []
                keeper._committer._is_complete = True
                keeper._committer._state.notify_all()
        if "_indexer" in parts:
            keeper._indexer._is_stopping = True
            keeper._indexer._arrived.set()
        for pool in (parts.get("_threads"), getattr(parts.get("_arbiter"), "_comparers", None)):
            if pool is not None:
                pool.shutdown(wait=False)
        # Who writes down what was looked at waits for an entry, and would for ever.
        self.audit.record_soon(_LAST_ENTRY)
        for thread in set(threading.enumerate()) - self._threads_before:
            if not _is_over(thread):
                raise Hangs(f"Thread {thread.name} of a dead process goes on.")
        if "_resources" in parts:
            keeper._resources.close()
        self._leave()

    def _leave(self) -> None:
        self._surroundings.close()
        engine: Engine = self.database.engine
        engine.dispose()

    # --- what is around it ------------------------------------------------------------------

    @contextmanager
    def _world(self) -> Iterator[None]:
        """Have the archive live in our world instead of the machine's."""

        def room(_folder: Path, settings: ArchiveSettings) -> Space:
            return Space(1 << 41, self.free_bytes, settings.reserve_bytes or 0)

        begin = committer.Committer.start

        def start(own: Any, arbiter: Any) -> None:
            own._queue = _HeldQueue(own._queue, self._hand)
            begin(own, arbiter)

        among = known.TakenUids.among

        def ask(own: Any, uids: list[str]) -> Any:
            # It has a connection of its own to the same database.
            self.database.answer()
            return among(own, uids)

        with (
            mock.patch.object(known.TakenUids, "among", ask),
            mock.patch.object(committer.Committer, "start", start),
            mock.patch.object(faults, "reach", self.fate.reach),
            mock.patch.object(space, "space", room),
            mock.patch.object(indexer, "_RETRY_S", (0.001,)),
            mock.patch.object(spares.PreparedSegments, "_run"),
            mock.patch.object(roster, "_process_word", lambda pid: f"{pid}:{self._number}"),
            self.unsynced.watching(),
        ):
            yield


class _HeldQueue:
    """A queue whose one reader waits for a hand to be lifted before it takes what is there."""

    def __init__(self, inner: Any, hand: threading.Event) -> None:
        self._inner = inner
        self._hand = hand
        self.put, self.get_nowait, self.empty = inner.put, inner.get_nowait, inner.empty

    def get(self) -> Any:
        """Return the first, once the hand is lifted."""
        first = self._inner.get()
        self._hand.wait()
        return first


def _give_up(ticket: Ticket) -> None:
    """Let whoever waits for an answer know that there will be none."""

    def end() -> None:
        if not ticket.future.done():
            ticket.future.set_exception(Died())

    if ticket.loop is None:
        end()
        return
    with suppress(RuntimeError):
        ticket.loop.call_soon_threadsafe(end)


def _is_over(thread: threading.Thread) -> bool:
    """Wait until a thread has run out."""
    while True:
        try:
            thread.join(20.0)
            break
        except RuntimeError:
            # It is listed already, and about to begin.
            time.sleep(0.001)
    return not thread.is_alive()


def _stacks() -> str:
    """Say where every thread is."""
    frames = sys._current_frames()
    return "\n".join(
        f"{thread.name}:\n{''.join(traceback.format_stack(frames[thread.ident])[-6:])}"
        for thread in threading.enumerate()
        if thread.ident in frames
    )
