"""The audit book: who did what, kept so that nobody can change it unseen.

In comes an `AuditEntry`, and this file says when it is recorded: in the same transaction as what it
tells of, where there is one. It becomes rows (`audit_rows.py`), chained to the entry before it
(`audit_chain.py`). Out come entries by filter, the state of the chain, and each entry as the DICOM
audit message (`audit_message.py`).

A reader who scrolls through a study makes thousands of requests. They are one act: the first one
in each minute is recorded before its answer leaves, the others of that minute are not. Searches
come by the hundred each second; they are recorded one by one, but a tenth of a second later and
many in one transaction (`audit_later.py`).

References
----------
PS3.15 A.5 — audit trail message format profile; 45 CFR 164.312(b) — audit controls.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from pacsteward.base.clock import Clock
from pacsteward.base.db import Database, took_nothing
from pacsteward.base.errors import Unavailable
from pacsteward.security import audit_chain, audit_rows
from pacsteward.security.actor import Actor
from pacsteward.security.audit_chain import ChainReport
from pacsteward.security.audit_entry import (
    Action,
    AuditEntry,
    AuditEvent,
    AuditEventType,
    AuditObject,
    AuditOutcome,
    Participant,
    RecordedEntry,
)
from pacsteward.security.audit_later import REFUSALS_MAX, WAITING_MAX, Later
from pacsteward.security.audit_rows import AuditFilter

_REMEMBERED_MAX = 50_000


@dataclass(frozen=True, slots=True)
class BookPage:
    """Some entries as they are read.

    Parameters
    ----------
    total
        How many the book has.
    waiting
        How many wait for room on the disk, and are not in it yet.
    """

    entries: list[RecordedEntry]
    total: int
    waiting: int


class AuditBook:
    """Records and reads; every method blocks.

    Parameters
    ----------
    database
        Where the book is kept.
    clock
        Time of the entries. Their order is their number, not their time.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._lock = threading.Lock()
        self._minute: datetime | None = None
        self._recorded: set[Hashable] = set()
        self._later = Later(self._record_later)

    # Recording ---------------------------------------------------------------------------------

    def record(self, entry: AuditEntry, connection: Connection | None = None) -> int:
        """Put `entry` into the book and return its number.

        Parameters
        ----------
        connection
            The caller's transaction, so that deed and entry are kept together or not at all;
            None keeps the entry at once. On PostgreSQL other writers of the book wait from here
            until that transaction ends, so record last.
        """
        return self.record_all([entry], connection)

    def record_all(
        self, entries: Sequence[AuditEntry], connection: Connection | None = None
    ) -> int:
        """Put `entries` into the book, in their order, and return the number of the last one."""
        if connection is not None:
            return audit_rows.append(connection, entries, self._clock)
        with self._database.write() as own:
            return audit_rows.append(own, entries, self._clock)

    def record_or_keep(self, entry: AuditEntry, *, waiting_max: int = WAITING_MAX) -> None:
        """Put `entry` into the book; while that cannot be written, it waits in memory for it.

        For what must go on while the disk is full. The entry survives the end of this process at
        once, and a loss of power a moment later; one that waits survives neither.

        Parameters
        ----------
        waiting_max
            With more than so many that wait, it does not.

        Raises
        ------
        Unavailable
            Too many wait.
        """
        try:
            with self._database.write(durable=False) as connection:
                audit_rows.append(connection, [entry], self._clock)
        except Unavailable:
            if self._later.waiting > waiting_max:
                raise
            when = self._clock.now().isoformat(timespec="seconds")
            said = f"{entry.what} That was at {when}, when the book could not be written."
            self._later.put(replace(entry, what=said))

    # What comes often --------------------------------------------------------------------------

    def record_soon(self, entry: AuditEntry) -> None:
        """Put `entry` into the book within a tenth of a second, and return at once.

        For what happens too often to wait for. If this process is killed before, it is lost; so
        nothing that changes anything is recorded this way. Call `make_room` first: this never
        waits, and takes the entry in any case.
        """
        self._later.put(entry)

    @property
    def is_crowded(self) -> bool:
        """Whether `make_room` would wait, which is not for an event loop (`WouldWait`)."""
        return self._later.is_crowded

    def make_room(self) -> None:
        """Wait for the book while very many entries wait for it, before what will be recorded soon.

        Raises
        ------
        Unavailable
            It cannot be written. What would have to be recorded must not be done.
        """
        self._later.make_room()

    def record_query(
        self, actor: Actor, *, level: str, keys: Iterable[str], matches: int, asked: str = ""
    ) -> None:
        """Record soon that somebody searched; as for `record_soon`, `make_room` comes first.

        Parameters
        ----------
        actor
            Who asked.
        level
            Query/Retrieve Level.
        keys
            Names of the keys that restricted the search. Their values are left out: they may be
            patients' names.
        matches
            How many answers were given.
        asked
            SOP Class UID of the information model; the level stands for it where there is none.
        """
        words = ", ".join(keys)
        answers = "1 answer" if matches == 1 else f"{matches} answers"
        entry = AuditEntry(
            event=AuditEvent.QUERY,
            action="E",
            actor=actor,
            what=f"{actor.name} searched at {level} level by {words or 'nothing'}: {answers}.",
            objects=(AuditObject("query", asked or level, query=words or "no keys"),),
        )
        self.record_soon(entry)

    def catch_up(self) -> int:
        """Record what waits; return how many entries wait for room on the disk all the same.

        The book can be read while nothing can be written: whoever makes room wants to see in it
        who filled the disk.

        Raises
        ------
        Unavailable
            It is not for want of room that the database takes nothing.
        """
        try:
            self._later.flush()
        except Unavailable as error:
            if not took_nothing(error):
                raise
            return self._later.waiting
        return 0

    def close(self) -> None:
        """Record what is still waiting, and what comes while that is done."""
        self._later.close()

    def _record_later(self, entries: Sequence[AuditEntry]) -> None:
        with self._database.write(durable=False) as connection:
            audit_rows.append(connection, entries, self._clock)

    # What is one act for a minute --------------------------------------------------------------

    def record_access(
        self,
        actor: Actor,
        study_instance_uids: Iterable[str],
        *,
        patient_ids: Iterable[str] = (),
        what: str = "",
        event: AuditEvent = AuditEvent.INSTANCES_ACCESSED,
        action: Action = "R",
        participants: tuple[Participant, ...] = (),
    ) -> None:
        """Record that `actor` saw these studies, once in each minute for each study.

        Call it before the answer leaves. The entry survives the end of this process at once, and
        a loss of power a moment later. While the book cannot be written, because the disk is full,
        it waits in memory and the answer may leave: the images that a patient's treatment needs
        are not withheld for it. Only so many wait; then readers are refused.
        """
        key = (actor.kind, actor.name, actor.address, event, participants)
        fresh = self._fresh((key, uid) for uid in study_instance_uids)
        if not fresh:
            return
        studies = [AuditObject("study", uid) for _key, uid in fresh]
        patients = [AuditObject("patient", patient_id) for patient_id in patient_ids]
        entry = AuditEntry(
            event=event,
            action=action,
            actor=actor,
            what=what or f"{actor.name} opened {_studies(len(studies))}.",
            objects=(*studies, *patients),
            participants=participants,
        )
        self._record_once(fresh, entry)

    def has_recorded_access(
        self,
        actor: Actor,
        study_instance_uids: Iterable[str],
        *,
        event: AuditEvent = AuditEvent.INSTANCES_ACCESSED,
    ) -> bool:
        """Say whether `record_access` has nothing to do; never blocks, so an event loop may ask."""
        minute = self._clock.now().replace(second=0, microsecond=0)
        key = (actor.kind, actor.name, actor.address, event, ())
        with self._lock:
            return minute == self._minute and all(
                (key, uid) in self._recorded for uid in study_instance_uids
            )

    def record_reading(self, actor: Actor) -> None:
        """Record that `actor` reads this book, once in each minute; else as `record_access`.

        References
        ----------
        PS3.15 A.5.3.2 — Audit Log Used.
        """
        fresh = self._fresh([(actor.kind, actor.name, actor.address, AuditEvent.AUDIT_LOG_USED)])
        if not fresh:
            return
        entry = AuditEntry(
            event=AuditEvent.AUDIT_LOG_USED,
            action="R",
            actor=actor,
            what=f"{actor.name} read the audit book.",
            objects=(AuditObject("other", "audit"),),
        )
        self._record_once(fresh, entry)

    def record_refusal(self, actor: Actor, what: str, *, event_type: AuditEventType) -> None:
        """Record that somebody was turned away, once in each minute for each sentence."""
        fresh = self._fresh([(actor.kind, actor.name, actor.address, what)])
        if not fresh:
            return
        entry = AuditEntry(
            event=(
                AuditEvent.USER_AUTHENTICATION
                if event_type is AuditEventType.LOGIN
                else AuditEvent.SECURITY_ALERT
            ),
            event_type=event_type,
            action="E",
            outcome=AuditOutcome.MINOR_FAILURE,
            actor=actor,
            what=what,
        )
        self._record_once(fresh, entry, waiting_max=REFUSALS_MAX)

    def _fresh(self, keys: Iterable[Any]) -> list[Any]:
        """Pick the keys that were not recorded in the present minute, and note them."""
        minute = self._clock.now().replace(second=0, microsecond=0)
        with self._lock:
            if minute != self._minute or len(self._recorded) > _REMEMBERED_MAX:
                self._minute = minute
                self._recorded.clear()
            fresh = [key for key in dict.fromkeys(keys) if key not in self._recorded]
            self._recorded.update(fresh)
            return fresh

    def _record_once(
        self, fresh: Iterable[Hashable], entry: AuditEntry, *, waiting_max: int = WAITING_MAX
    ) -> None:
        """Put `entry` into the book; if that fails, it is not taken as recorded next time."""
        try:
            self.record_or_keep(entry, waiting_max=waiting_max)
        except BaseException:
            with self._lock:
                self._recorded.difference_update(fresh)
            raise

    # Reading -----------------------------------------------------------------------------------

    def entries(
        self, wanted: AuditFilter | None = None, *, before: int | None = None, limit: int = 100
    ) -> list[RecordedEntry]:
        """Return entries, the newest first.

        Parameters
        ----------
        before
            Only entries with smaller numbers, to turn pages with.
        limit
            Most entries that are given, 1 to 1,000.
        """
        return self.page(wanted, before=before, limit=limit).entries

    def page(
        self, wanted: AuditFilter | None = None, *, before: int | None = None, limit: int = 100
    ) -> BookPage:
        """Return what `entries` does, and what is missing there."""
        waiting = self.catch_up()
        with self._database.read() as connection:
            entries = audit_rows.page(
                connection, wanted or AuditFilter(), before=before, limit=limit
            )
            total = audit_rows.total(connection)
        return BookPage(entries, total, waiting)

    def count(self) -> int:
        """Return how many entries were ever recorded."""
        self.catch_up()
        with self._database.read() as connection:
            return audit_rows.total(connection)

    # The chain ---------------------------------------------------------------------------------

    def verify(self, *, seal_key: bytes | None = None, newest: int | None = None) -> ChainReport:
        """Walk the chain; see `audit_chain.walk`. Some seconds for 100,000 entries."""
        self.catch_up()
        with self._database.read() as connection:
            return audit_chain.walk(connection, seal_key=seal_key, newest=newest)

    def seal(self, key: bytes) -> int:
        """Sign the present end of the chain; return its number (0 for an empty book).

        Parameters
        ----------
        key
            At least 32 random bytes that are kept outside the database.
        """
        with self._database.write() as connection:
            return audit_chain.seal(connection, key, self._clock.now())


def _studies(count: int) -> str:
    return "a study" if count == 1 else f"{count} studies"
