"""What the house may ask of its work: enqueue, cancel, retry, pause, look.

Any process enqueues; only the jobs process runs (`engine.py`). A job is durable once
`JobQueue.enqueue` has returned. It runs at least once: after a crash it runs again from its
beginning, so what it does must bear repetition.

::

    waiting ──▶ running ──▶ done
       ▲           │──────▶ failed       after the last attempt
       └───────────┘        cancelled    by somebody; also from waiting
     back-off, crash
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update
from sqlalchemy.sql import ColumnElement

from pacsteward.base.clock import Clock, SystemClock
from pacsteward.base.db import Database, insert_new
from pacsteward.base.errors import Conflict, Invalid, NotFound
from pacsteward.base.jobs.kinds import JobKind
from pacsteward.base.jobs.model import JobState, JobView, KindView, Progress
from pacsteward.base.jobs.tables import JOB, JOB_KIND

Also = Callable[[Connection], object]
"""Called in the transaction of a change: what it writes is kept with it or not at all."""

ARGUMENTS_MAX_BYTES = 256 * 1024
"""A job names what it works on; it does not carry it."""


class JobQueue:
    """The queues of the house.

    Parameters
    ----------
    database, clock
        Where the jobs are kept, and the time.
    kinds
        The kinds there are; with them a misspelt name is refused. None takes every name.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock | None = None,
        *,
        kinds: Iterable[JobKind] | None = None,
    ) -> None:
        self._database = database
        self._clock = clock or SystemClock()
        self._known = None if kinds is None else frozenset(kind.name for kind in kinds)

    def enqueue(self, kind: str, /, *, key: str = "", **arguments: Any) -> str:
        """Make a job and return its id; it is durable then.

        Parameters
        ----------
        kind
            Name of a `JobKind`.
        key
            While a job of this kind and key is waiting, no second one is made and the first one's
            id is returned; its arguments stay. One that is already running does not count, since
            it may have passed what the new one is about; the new one then waits until it ends.
        arguments
            JSON values, given to the work by name. They are shown to everybody who may see the
            queues: no patient data.

        Raises
        ------
        Invalid
            There is no such kind, or the arguments cannot be kept.
        Unavailable
            The job could not be kept; try again.
        """
        row = self._row(kind, key, arguments)
        if key:
            # Asking first spares the disk a transaction that would change nothing.
            with self._database.read() as connection:
                waiting = _waiting(connection, kind, key)
            if waiting is not None:
                return str(waiting)
        with self._database.write() as connection:
            job_id = _insert(connection, row)
        return str(job_id)

    def cancel(self, job_id: str, *, also: Also | None = None) -> bool:
        """Take a waiting job away, ask a running one to stop; False if it had ended before.

        A running job stops where it reports its progress, normally within a second.

        Parameters
        ----------
        also
            Called in the same transaction, unless the job had ended.

        Raises
        ------
        NotFound
            No such job.
        """
        with self._database.write() as connection:
            state = _locked(connection, job_id).state
            if state == JobState.WAITING:
                change: dict[str, Any] = {
                    "state": JobState.CANCELLED,
                    "ended_at": self._clock.now(),
                }
            elif state == JobState.RUNNING:
                change = {"is_cancel_wanted": True}
            else:
                return False
            connection.execute(update(JOB).where(JOB.c.job_id == int(job_id)).values(**change))
            if also is not None:
                also(connection)
        return True

    def retry(self, job_id: str, *, also: Also | None = None) -> None:
        """Begin again with a job that ended badly; let one that waits be tried at once.

        Parameters
        ----------
        also
            Called in the same transaction.

        Raises
        ------
        NotFound
            No such job.
        Conflict
            It is running, it is done, or another one waits under its key.
        """
        with self._database.write() as connection:
            row = _locked(connection, job_id)
            if row.state in (JobState.RUNNING, JobState.DONE):
                raise Conflict(
                    f"Job {job_id} is {row.state}, so it cannot be tried again.",
                    remedy="Wait for its end where it is running; order the work anew if it is to "
                    "be done twice.",
                )
            if row.state != JobState.WAITING and row.key:
                other = _waiting(connection, row.kind, row.key)
                if other is not None:
                    raise Conflict(
                        f"Job {job_id} was not tried again.",
                        why=f"Job {other} already waits to do the same.",
                        remedy=f"Look at job {other}, or have that one tried at once.",
                    )
            connection.execute(
                update(JOB)
                .where(JOB.c.job_id == row.job_id)
                .values(
                    state=JobState.WAITING,
                    due_at=None,
                    ended_at=None,
                    failures=0,
                    crashes=0,
                    is_cancel_wanted=False,
                )
            )
            if also is not None:
                also(connection)

    def pause(self, kind: str, *, also: Also | None = None) -> None:
        """Start no more jobs of `kind` until `resume`; running ones go on.

        Parameters
        ----------
        also
            Called in the same transaction.
        """
        self._set_paused(kind, True, also)

    def resume(self, kind: str, *, also: Also | None = None) -> None:
        """Undo `pause`."""
        self._set_paused(kind, False, also)

    def job(self, job_id: str) -> JobView:
        """Return one job.

        Raises
        ------
        NotFound
            No such job.
        """
        with self._database.read() as connection:
            row = connection.execute(select(JOB).where(JOB.c.job_id == _number(job_id))).first()
        if row is None:
            raise _no_job(job_id)
        return _view(row)

    def jobs(
        self,
        *,
        kind: str | None = None,
        states: Sequence[JobState] = (),
        limit: int = 100,
        offset: int = 0,
    ) -> list[JobView]:
        """List jobs, newest first; empty `states` are all."""
        wanted: list[ColumnElement[bool]] = []
        if kind is not None:
            wanted.append(JOB.c.kind == kind)
        if states:
            wanted.append(JOB.c.state.in_(states))
        with self._database.read() as connection:
            rows = connection.execute(
                select(JOB).where(*wanted).order_by(JOB.c.job_id.desc()).limit(limit).offset(offset)
            ).all()
        return [_view(row) for row in rows]

    def kinds(self) -> list[KindView]:
        """Count the jobs of each kind, by name; kinds without any are left out unless paused."""
        with self._database.read() as connection:
            paused = {row.kind: row.is_paused for row in connection.execute(select(JOB_KIND))}
            counted = connection.execute(
                select(
                    JOB.c.kind,
                    JOB.c.state,
                    func.count().label("jobs"),
                    func.min(JOB.c.enqueued_at).label("oldest_at"),
                )
                .where(JOB.c.state.in_([JobState.WAITING, JobState.RUNNING, JobState.FAILED]))
                .group_by(JOB.c.kind, JOB.c.state)
            ).all()
        table = {(row.kind, row.state): row for row in counted}
        names = {row.kind for row in counted} | {name for name, is_on in paused.items() if is_on}
        return [_kind_view(name, paused.get(name, False), table) for name in sorted(names)]

    def _row(self, kind: str, key: str, arguments: dict[str, Any]) -> dict[str, Any]:
        if self._known is not None and kind not in self._known:
            raise Invalid(
                f"There is no kind of work called {kind!r}.",
                remedy=f"Choose one of {', '.join(sorted(self._known))}.",
            )
        try:
            text = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise Invalid(
                f"A job {kind} was not made.", why="Its arguments are not JSON values."
            ) from error
        if len(text) > ARGUMENTS_MAX_BYTES:
            raise Invalid(
                f"A job {kind} was not made.",
                why=f"Its arguments take {len(text)} bytes; {ARGUMENTS_MAX_BYTES} are allowed.",
            )
        return {
            "kind": kind,
            "key": key,
            "arguments": text,
            "state": JobState.WAITING,
            "enqueued_at": self._clock.now(),
        }

    def _set_paused(self, kind: str, is_paused: bool, also: Also | None) -> None:
        with self._database.write() as connection:
            ensure_kinds(connection, [kind])
            connection.execute(
                update(JOB_KIND).where(JOB_KIND.c.kind == kind).values(is_paused=is_paused)
            )
            if also is not None:
                also(connection)


def ensure_kinds(connection: Connection, kinds: Iterable[str]) -> None:
    """Make the rows of kinds that have none."""
    rows = [{"kind": kind} for kind in kinds]
    if rows:
        connection.execute(insert_new(connection, JOB_KIND), rows)


def _insert(connection: Connection, row: dict[str, Any]) -> int:
    """Insert a job, or find the one that waits under its key."""
    if not row["key"]:
        return int(
            connection.execute(insert(JOB).values(**row).returning(JOB.c.job_id)).scalar_one()
        )
    while True:
        # The unique index decides: somebody else may insert between a look and an insert. On
        # PostgreSQL the other one may also begin to run meanwhile, hence the loop.
        made = connection.execute(insert_new(connection, JOB).returning(JOB.c.job_id), row).scalar()
        job_id = made if made is not None else _waiting(connection, row["kind"], row["key"])
        if job_id is not None:
            return int(job_id)


def _waiting(connection: Connection, kind: str, key: str) -> int | None:
    return connection.execute(
        select(JOB.c.job_id).where(
            JOB.c.state == JobState.WAITING, JOB.c.kind == kind, JOB.c.key == key
        )
    ).scalar()


def _locked(connection: Connection, job_id: str) -> Row[Any]:
    """Read a job that is about to be changed."""
    row = connection.execute(
        select(JOB).where(JOB.c.job_id == _number(job_id)).with_for_update()
    ).first()
    if row is None:
        raise _no_job(job_id)
    return row


def _number(job_id: str) -> int:
    # More digits than a job can have are no number for the database either.
    return int(job_id) if job_id.isascii() and job_id.isdigit() and len(job_id) < 19 else -1


def _no_job(job_id: str) -> NotFound:
    return NotFound(
        f"There is no job {job_id[:32]!r}.",
        why="Finished ones are removed in time.",
        remedy="See all that are kept: `pacsteward jobs list --ended`, or the page Jobs.",
    )


def _view(row: Row[Any]) -> JobView:
    return JobView(
        job_id=str(row.job_id),
        kind=row.kind,
        key=row.key,
        arguments=json.loads(row.arguments),
        state=JobState(row.state),
        attempts=row.attempts,
        error=row.error,
        progress=Progress(row.progress_done, row.progress_total, row.progress_words),
        is_cancel_wanted=row.is_cancel_wanted,
        enqueued_at=row.enqueued_at,
        due_at=row.due_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        worker=row.worker,
        result=None if row.result is None else json.loads(row.result),
    )


def _kind_view(name: str, is_paused: bool, table: dict[tuple[str, str], Row[Any]]) -> KindView:
    def count(state: JobState) -> int:
        row = table.get((name, state))
        return 0 if row is None else int(row.jobs)

    waiting = table.get((name, JobState.WAITING))
    return KindView(
        kind=name,
        is_paused=is_paused,
        waiting=count(JobState.WAITING),
        running=count(JobState.RUNNING),
        failed=count(JobState.FAILED),
        oldest_waiting_at=None if waiting is None else waiting.oldest_at,
    )
