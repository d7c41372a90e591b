"""The statements with which the engine moves jobs through their states.

Every function works in the caller's transaction. A job belongs to one worker and attempt while it
runs; whatever is written about it later names both, so a worker that was given up by the others
and comes back can change nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, delete, exists, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.sql import ColumnElement

from pacsteward.base.jobs.kinds import JobKind, is_due
from pacsteward.base.jobs.model import JobState, Progress
from pacsteward.base.jobs.tables import JOB, JOB_KIND, JOB_WORKER

CRASHES_MAX = 20
"""A job whose process died so often under it is given up: perhaps it is what kills the process."""

CRASHES_AT_ONCE = 3
"""After so many it waits before it runs again, so that it cannot keep a process from living."""

CRASH_PAUSE_S = 30.0

PERIODIC_KEY = "periodic"
"""Under which the house itself enqueues periodic kinds."""

KEPT_DAYS: Mapping[JobState, int] = {
    JobState.DONE: 7,
    JobState.CANCELLED: 30,
    JobState.FAILED: 180,
}
"""How long jobs that have ended are shown."""

SWEPT_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Held:
    """A running job in the hands of a worker."""

    job_id: int
    attempt: int
    worker: str


def startable(
    connection: Connection, kinds: Mapping[str, JobKind], now: datetime
) -> dict[str, int]:
    """Say how many jobs may be started, for each kind that has one waiting; only reads."""
    anything = select(JOB.c.job_id).where(JOB.c.state == JobState.WAITING).limit(1)
    if connection.execute(anything).first() is None:
        # Most of the time: one look into an index.
        return {}
    running = _running(connection, kinds)
    other = JOB_KIND.alias("kind_row")
    names = connection.execute(
        select(other.c.kind).where(
            other.c.kind.in_(list(kinds)),
            other.c.is_paused.is_(False),
            exists(
                select(JOB.c.job_id).where(
                    JOB.c.state == JobState.WAITING,
                    JOB.c.kind == other.c.kind,
                    _is_time(kinds.values(), now),
                )
            ),
        )
    ).scalars()
    free = {name: kinds[name].concurrency - running.get(name, 0) for name in names}
    return {name: count for name, count in free.items() if count > 0}


def claim(
    connection: Connection,
    kinds: Mapping[str, JobKind],
    *,
    worker: str,
    now: datetime,
    limit: int,
) -> list[Row[Any]]:
    """Make waiting jobs ours, oldest first, within the concurrency of their kinds.

    On PostgreSQL the rows of the kinds are locked, so that two workers that count at the same
    time cannot both find the last place free.
    """
    rows = connection.execute(
        select(JOB_KIND)
        .where(JOB_KIND.c.kind.in_(list(kinds)))
        .order_by(JOB_KIND.c.kind)
        .with_for_update()
    ).all()
    running = _running(connection, kinds)
    claimed: list[Row[Any]] = []
    for row in rows:
        kind = kinds[row.kind]
        places = min(kind.concurrency - running.get(kind.name, 0), limit - len(claimed))
        if row.is_paused or places <= 0:
            continue
        claimed += _claim_of_kind(connection, kind, places, worker, now)
    return claimed


def finish(connection: Connection, held: Held, now: datetime, result: str | None) -> bool:
    """Write down that a job is done; False if it was not ours any more."""
    return _settle(
        connection, held, state=JobState.DONE, ended_at=now, result=result, error="", due_at=None
    )


def stop(connection: Connection, held: Held, now: datetime) -> bool:
    """Write down that a job let itself be cancelled."""
    return _settle(connection, held, state=JobState.CANCELLED, ended_at=now)


def hand_back(connection: Connection, held: Held, now: datetime) -> bool:
    """Let a job wait again because our process ends; that is no failure of the job."""
    return _wait_again(connection, held, now, due_at=None)


def fail(
    connection: Connection, held: Held, now: datetime, words: str, delay_s: float | None
) -> bool:
    """Write down a failed attempt; the job waits for the next one, or is given up.

    Parameters
    ----------
    delay_s
        Pause before the next attempt; None gives up.
    """
    counted: dict[str, Any] = {"failures": JOB.c.failures + 1, "error": words}
    if delay_s is None:
        return _settle(connection, held, state=JobState.FAILED, ended_at=now, **counted)
    due_at = now + timedelta(seconds=delay_s)
    return _wait_again(connection, held, now, due_at=due_at, **counted)


def adopt(connection: Connection, gone: Collection[str], now: datetime) -> list[int]:
    """Let the jobs of workers that are gone, or have left, wait again; return their ids.

    Whether a worker is on the list is asked in the same statement: one that signs on and takes a
    job while we look must not lose it.
    """
    is_listed = exists(select(JOB_WORKER.c.worker).where(JOB_WORKER.c.worker == JOB.c.worker))
    lost = connection.execute(
        select(JOB)
        .where(JOB.c.state == JobState.RUNNING, or_(JOB.c.worker.in_(gone), ~is_listed))
        .with_for_update(of=JOB, skip_locked=True)
    ).all()
    for row in lost:
        held = Held(row.job_id, row.attempts, row.worker)
        counted: dict[str, Any] = {
            "crashes": row.crashes + 1,
            "error": "The process that ran it ended.",
        }
        if row.is_cancel_wanted:
            _settle(connection, held, state=JobState.CANCELLED, ended_at=now)
        elif row.crashes + 1 >= CRASHES_MAX:
            _settle(connection, held, state=JobState.FAILED, ended_at=now, **counted)
        else:
            pause = timedelta(seconds=CRASH_PAUSE_S)
            due_at = now + pause if row.crashes + 1 >= CRASHES_AT_ONCE else None
            _wait_again(connection, held, now, due_at=due_at, **counted)
    return [row.job_id for row in lost]


def to_be_stopped(connection: Connection, held: Sequence[Held]) -> set[int]:
    """Return which of our jobs were cancelled, or are not ours any more."""
    rows = connection.execute(
        select(
            JOB.c.job_id, JOB.c.attempts, JOB.c.worker, JOB.c.state, JOB.c.is_cancel_wanted
        ).where(JOB.c.job_id.in_([one.job_id for one in held]))
    ).all()
    ours = {
        Held(row.job_id, row.attempts, row.worker)
        for row in rows
        if row.state == JobState.RUNNING and not row.is_cancel_wanted
    }
    return {one.job_id for one in held if one not in ours}


def is_cancelled(connection: Connection, held: Held) -> bool:
    """Say whether somebody wants this job to stop."""
    return bool(
        connection.execute(
            select(JOB.c.is_cancel_wanted).where(JOB.c.job_id == held.job_id)
        ).scalar()
    )


def note_progress(connection: Connection, reports: Iterable[tuple[Held, Progress]]) -> None:
    """Write down how far jobs have come."""
    for held, progress in reports:
        connection.execute(
            update(JOB)
            .where(*_is(held))
            .values(
                progress_done=progress.done,
                progress_total=progress.total,
                progress_words=progress.words,
            )
        )


def periodic_due(connection: Connection, kinds: Iterable[JobKind], now: datetime) -> list[JobKind]:
    """Return the periodic kinds that it is time for; only reads."""
    periods = {kind.name: kind for kind in kinds if kind.every_s is not None}
    if not periods:
        return []
    rows = connection.execute(select(JOB_KIND).where(JOB_KIND.c.kind.in_(list(periods))))
    return [
        periods[row.kind]
        for row in rows
        if is_due(row.last_enqueued_at, periods[row.kind].every_s or 0.0, now)
    ]


def enqueue_periodic(connection: Connection, kind: JobKind, now: datetime) -> bool:
    """Enqueue a periodic kind unless one is on its way, or another worker was quicker."""
    row = connection.execute(
        select(JOB_KIND).where(JOB_KIND.c.kind == kind.name).with_for_update()
    ).one()
    if not is_due(row.last_enqueued_at, kind.every_s or 0.0, now):
        return False
    connection.execute(
        update(JOB_KIND).where(JOB_KIND.c.kind == kind.name).values(last_enqueued_at=now)
    )
    on_its_way = connection.execute(
        select(JOB.c.job_id).where(
            JOB.c.kind == kind.name,
            JOB.c.key == PERIODIC_KEY,
            JOB.c.state.in_([JobState.WAITING, JobState.RUNNING]),
        )
    ).first()
    if on_its_way is not None:
        return False
    connection.execute(
        insert(JOB).values(
            kind=kind.name,
            key=PERIODIC_KEY,
            arguments="{}",
            state=JobState.WAITING,
            enqueued_at=now,
        )
    )
    return True


def sweep(connection: Connection, now: datetime) -> int:
    """Remove jobs that ended long ago, a bounded number at a time; return how many."""
    removed = 0
    for state, days in KEPT_DAYS.items():
        old = (
            select(JOB.c.job_id)
            .where(JOB.c.state == state, JOB.c.ended_at < now - timedelta(days=days))
            .limit(SWEPT_AT_ONCE)
        )
        removed += connection.execute(delete(JOB).where(JOB.c.job_id.in_(old))).rowcount
    return removed


def _running(connection: Connection, kinds: Iterable[str]) -> dict[str, int]:
    rows = connection.execute(
        select(JOB.c.kind, func.count().label("jobs"))
        .where(JOB.c.state == JobState.RUNNING, JOB.c.kind.in_(list(kinds)))
        .group_by(JOB.c.kind)
    )
    return {row.kind: row.jobs for row in rows}


def _is_time(kinds: Iterable[JobKind], now: datetime) -> ColumnElement[bool]:
    """Nothing to wait for any more, or longer to wait than a pause can be: a clock set back."""
    longest = max((kind.retry.max_delay_s for kind in kinds), default=0.0)
    horizon = now + timedelta(seconds=max(longest, CRASH_PAUSE_S))
    return or_(JOB.c.due_at.is_(None), JOB.c.due_at <= now, JOB.c.due_at > horizon)


def _claim_of_kind(
    connection: Connection, kind: JobKind, places: int, worker: str, now: datetime
) -> list[Row[Any]]:
    twin = JOB.alias("twin")
    rows = connection.execute(
        select(JOB)
        .where(
            JOB.c.state == JobState.WAITING,
            JOB.c.kind == kind.name,
            _is_time([kind], now),
            ~exists(
                select(twin.c.job_id).where(
                    twin.c.state == JobState.RUNNING,
                    twin.c.kind == JOB.c.kind,
                    twin.c.key == JOB.c.key,
                    JOB.c.key != "",
                )
            ),
        )
        .order_by(JOB.c.job_id)
        .limit(places)
        .with_for_update(of=JOB, skip_locked=True)
    ).all()
    connection.execute(
        update(JOB)
        .where(JOB.c.job_id.in_([row.job_id for row in rows]))
        .values(
            state=JobState.RUNNING,
            worker=worker,
            attempts=JOB.c.attempts + 1,
            started_at=now,
            due_at=None,
            is_cancel_wanted=False,
            progress_done=0,
            progress_total=0,
            progress_words="",
        )
    )
    return list(rows)


def _is(held: Held) -> tuple[ColumnElement[bool], ...]:
    return (
        JOB.c.job_id == held.job_id,
        JOB.c.state == JobState.RUNNING,
        JOB.c.worker == held.worker,
        JOB.c.attempts == held.attempt,
    )


def _settle(connection: Connection, held: Held, **values: Any) -> bool:
    found = connection.execute(update(JOB).where(*_is(held)).values(**values))
    return found.rowcount == 1


def _wait_again(connection: Connection, held: Held, now: datetime, **values: Any) -> bool:
    """Put a running job back, unless a younger one waits under its key and does its work."""
    try:
        # The unique index decides; a savepoint keeps the rest of the transaction.
        with connection.begin_nested():
            return _settle(connection, held, state=JobState.WAITING, **values)
    except IntegrityError:
        return _make_way(connection, held, now, values)


def _make_way(connection: Connection, held: Held, now: datetime, values: Mapping[str, Any]) -> bool:
    """End a job in favour of the one that waits under its key, which inherits its pause."""
    row = connection.execute(select(JOB).where(JOB.c.job_id == held.job_id)).one()
    younger = connection.execute(
        select(JOB.c.job_id).where(
            JOB.c.state == JobState.WAITING, JOB.c.kind == row.kind, JOB.c.key == row.key
        )
    ).scalar()
    connection.execute(
        update(JOB)
        .where(JOB.c.job_id == younger)
        .values(
            due_at=values["due_at"],
            failures=row.failures + ("failures" in values),
            crashes=row.crashes + ("crashes" in values),
        )
    )
    words = f"Job {younger} does the same and goes on in its place. {values.get('error', '')}"
    return _settle(connection, held, state=JobState.CANCELLED, ended_at=now, error=words.strip())
