"""Jobs as they are shown, and what a running job may say of itself."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol


class JobState(StrEnum):
    """Where a job is in its life."""

    WAITING = "waiting"
    """For its turn, its window, or the next attempt."""
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    """Given up; `JobQueue.retry` begins again."""
    CANCELLED = "cancelled"
    """By somebody, or because a younger job under the same key does its work."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job has come; a total of 0 is unknown."""

    done: int = 0
    total: int = 0
    words: str = ""


@dataclass(frozen=True, slots=True)
class JobView:
    """One job, as it is shown.

    Parameters
    ----------
    key
        What it was enqueued under; empty for none.
    attempts
        Times it was started.
    error
        What the last attempt that failed said.
    due_at
        Before that moment it is not tried again; None is at once.
    worker
        Which process runs it, or ran it last.
    """

    job_id: str
    kind: str
    key: str
    arguments: Mapping[str, Any]
    state: JobState
    attempts: int
    error: str
    progress: Progress
    is_cancel_wanted: bool
    enqueued_at: datetime
    due_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    worker: str
    result: Any = None


@dataclass(frozen=True, slots=True)
class KindView:
    """The jobs of one kind, counted."""

    kind: str
    is_paused: bool
    waiting: int
    running: int
    failed: int
    oldest_waiting_at: datetime | None


class JobCancelled(BaseException):
    """Raised inside a job that has to stop: it was cancelled, or its process is ending.

    Not an `Exception`, so that a job's own ``except Exception`` does not swallow it.
    """


class JobRun(Protocol):
    """What a running job may say and ask of itself; see `this_job`."""

    @property
    def job_id(self) -> str:
        """Id of the job; empty where its function was called directly."""
        ...

    @property
    def attempt(self) -> int:
        """Which attempt this is, counted from 1."""
        ...

    def report(self, done: int, total: int = 0, words: str = "") -> None:
        """Say how far the work is; cheap enough to be called at every step.

        Raises
        ------
        JobCancelled
            The job has to stop; let it through.
        """
        ...


class _NoJob:
    """Stands in where a job's function is called directly, as in a test or from a command."""

    job_id = ""
    attempt = 1

    def report(self, done: int, total: int = 0, words: str = "") -> None:
        """Nobody listens."""


CURRENT_JOB: ContextVar[JobRun | None] = ContextVar("current_job", default=None)


def this_job() -> JobRun:
    """Return the job that the caller runs in."""
    return CURRENT_JOB.get() or _NoJob()
