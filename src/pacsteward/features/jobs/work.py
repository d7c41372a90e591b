"""What an administrator may do with the work behind the scenes, each deed with its audit entry.

The queue itself is `base/jobs`, and the rooms say what kinds of work there are. A deed and its
entry are kept in one transaction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from pacsteward.base.errors import Conflict, NotFound
from pacsteward.base.jobs import Also, JobState, JobView, KindView
from pacsteward.feature import House
from pacsteward.security import Actor, AuditEntry, AuditEvent, AuditEventType, AuditObject

OPEN: Final = (JobState.WAITING, JobState.RUNNING, JobState.FAILED)
"""What is not over, or needs somebody."""

MAY_RETRY: Final = (JobState.WAITING, JobState.FAILED, JobState.CANCELLED)
MAY_CANCEL: Final = (JobState.WAITING, JobState.RUNNING)


@dataclass(frozen=True, slots=True)
class KindOfWork:
    """A kind of work, with its jobs counted."""

    title: str
    counted: KindView


def titles(house: House) -> Mapping[str, str]:
    """Return the kinds of work that the rooms do, each with what it is called."""
    kinds = [job.kind for room in house.rooms for job in room.jobs]
    return {kind.name: kind.title for kind in sorted(kinds, key=lambda kind: kind.title)}


def kinds_of_work(house: House) -> list[KindOfWork]:
    """Return all kinds, by title; those of a later version that have jobs come last."""
    known = titles(house)
    counted = {one.kind: one for one in house.jobs.kinds()}
    names = [*known, *(name for name in counted if name not in known)]
    nothing = partial(
        KindView, is_paused=False, waiting=0, running=0, failed=0, oldest_waiting_at=None
    )
    return [
        KindOfWork(known.get(name, name), counted.get(name) or nothing(kind=name)) for name in names
    ]


def is_paused(house: House, kind: str) -> bool:
    """Say whether no more jobs of a kind are started."""
    return any(one.is_paused for one in house.jobs.kinds() if one.kind == kind)


def retry(house: House, job_id: str, *, by: Actor) -> JobView:
    """Begin again with a job that was given up or cancelled, or try one at once that waits.

    Raises
    ------
    NotFound
        No such job.
    Conflict
        It is running, it is done, or another one waits to do the same.
    """
    job = house.jobs.job(job_id)
    house.jobs.retry(job_id, also=_noted(house, by, job, "tried again"))
    return house.jobs.job(job_id)


def cancel(house: House, job_id: str, *, by: Actor) -> JobView:
    """Take a job away that waits; ask one that runs to stop.

    Raises
    ------
    NotFound
        No such job.
    Conflict
        It has ended already.
    """
    job = house.jobs.job(job_id)
    if not house.jobs.cancel(job_id, also=_noted(house, by, job, "cancelled")):
        raise Conflict(
            f"Job {job_id} was not cancelled.",
            why=f"It has ended already: it is {house.jobs.job(job_id).state}.",
            remedy="Nothing has to be done.",
        )
    return house.jobs.job(job_id)


def pause(house: House, kind: str, *, by: Actor) -> None:
    """Start no more jobs of a kind until `resume`; those that run go on.

    Raises
    ------
    NotFound
        No such kind.
    """
    house.jobs.pause(_known(house, kind), also=_decided(house, by, kind, "paused"))


def resume(house: House, kind: str, *, by: Actor) -> None:
    """Start jobs of a kind again; also of one that a later version paused.

    Raises
    ------
    NotFound
        No such kind.
    """
    name = kind if is_paused(house, kind) else _known(house, kind)
    house.jobs.resume(name, also=_decided(house, by, kind, "resumed"))


def _known(house: House, kind: str) -> str:
    known = titles(house)
    if kind not in known:
        raise NotFound(
            f"There is no kind of work called {kind[:64]!r}.",
            remedy=f"Choose one of {', '.join(sorted(known))}.",
        )
    return kind


def _noted(house: House, by: Actor, job: JobView, deed: str) -> Also:
    """Return what records a deed to one job, in the transaction that does it."""
    study = job.arguments.get("study_instance_uid")
    entry = AuditEntry(
        event=AuditEvent.SECURITY_ALERT,
        event_type=AuditEventType.USE_OF_RESTRICTED_FUNCTION,
        action="E",
        actor=by,
        what=f"{by.name} had job {job.job_id} ({job.kind}) {deed}.",
        objects=(
            AuditObject("other", f"jobs/{job.job_id}"),
            *([AuditObject("study", study)] if isinstance(study, str) else []),
        ),
    )
    return partial(house.audit.record, entry)


def _decided(house: House, by: Actor, kind: str, deed: str) -> Also:
    """Return what records a decision on a kind, in the transaction that keeps it."""
    entry = AuditEntry(
        event=AuditEvent.SECURITY_ALERT,
        event_type=AuditEventType.SOFTWARE_CONFIGURATION,
        action="U",
        actor=by,
        what=f"{by.name} {deed} all work of the kind {kind}.",
        objects=(AuditObject("other", f"jobs/{kind}"),),
    )
    return partial(house.audit.record, entry)
