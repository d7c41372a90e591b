"""``pacsteward jobs``: the work behind the scenes from the command line, running or not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final

from pacsteward.base.errors import Conflict, Invalid, NotFound, PacstewardError
from pacsteward.base.jobs import JobState, JobView
from pacsteward.feature import Command, House
from pacsteward.features.jobs import work
from pacsteward.security import at_command_line

_RETRIED: Final = "To be tried again"
_CANCELLED: Final = "Cancelled, or asked to stop"


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job, as the list shows it."""

    job: str
    kind: str
    about: str
    state: str
    attempts: int
    ordered_at: datetime
    error: str


@dataclass(frozen=True, slots=True)
class KindRow:
    """A kind of work, as the list shows it."""

    kind: str
    title: str
    is_paused: bool
    waiting: int
    running: int
    failed: int
    oldest_waiting_at: datetime | None


def list_jobs(
    house: House,
    *,
    kind: str = "",
    state: JobState | None = None,
    ended: bool = False,
    limit: int = 50,
) -> list[JobRow]:
    """List jobs that wait, run or were given up, the newest first.

    Parameters
    ----------
    kind
        Only this kind of work, as `pacsteward jobs kinds` names it.
    state
        Only jobs in this state.
    ended
        Those that are done or were cancelled, too.
    limit
        Most jobs, 1 to 1000.
    """
    states = (state,) if state is not None else () if ended else work.OPEN
    found = house.jobs.jobs(kind=kind or None, states=states, limit=max(1, min(limit, 1000)))
    return [_row(job) for job in found]


def list_kinds(house: House) -> list[KindRow]:
    """List the kinds of work, with their jobs counted, and which are paused."""
    return [
        KindRow(
            kind=one.counted.kind,
            title=one.title,
            is_paused=one.counted.is_paused,
            waiting=one.counted.waiting,
            running=one.counted.running,
            failed=one.counted.failed,
            oldest_waiting_at=one.counted.oldest_waiting_at,
        )
        for one in work.kinds_of_work(house)
    ]


def retry(house: House, *jobs: str) -> str:
    """Begin again with jobs that were given up or cancelled; try those at once that wait.

    Parameters
    ----------
    jobs
        Number of each; several after each other.
    """
    _do_to_each(jobs, partial(work.retry, house, by=at_command_line()), _RETRIED)
    return f"{_RETRIED}: {', '.join(jobs)}."


def cancel(house: House, *jobs: str) -> str:
    """Take waiting jobs away; ask running ones to stop.

    Parameters
    ----------
    jobs
        Number of each; several after each other.
    """
    _do_to_each(jobs, partial(work.cancel, house, by=at_command_line()), _CANCELLED)
    return f"{_CANCELLED}: {', '.join(jobs)}."


def pause(house: House, kind: str) -> str:
    """Start no more jobs of a kind; those that run go on.

    Parameters
    ----------
    kind
        As `pacsteward jobs kinds` names it.
    """
    work.pause(house, kind, by=at_command_line())
    return f"No more jobs {kind} are started."


def resume(house: House, kind: str) -> str:
    """Start jobs of a kind again.

    Parameters
    ----------
    kind
        As `pacsteward jobs kinds` names it.
    """
    work.resume(house, kind, by=at_command_line())
    return f"Jobs {kind} are started again."


def _do_to_each(jobs: tuple[str, ...], deed: Callable[[str], object], done_words: str) -> None:
    """Do it to each job that bears it, and say of the others why not.

    Raises
    ------
    PacstewardError
        As for the first one of the others; its text tells of all, and to which it was done.
    """
    if not jobs:
        raise Invalid("No job was named.", remedy="Give its number; `pacsteward jobs list` has it.")
    done: list[str] = []
    refused: list[PacstewardError] = []
    for job_id in jobs:
        try:
            deed(job_id)
            done.append(job_id)
        except (NotFound, Conflict) as error:
            refused.append(error)
        except PacstewardError as error:
            # The others would fare no better.
            refused.append(error)
            break
    if refused:
        remedies = [one.remedy for one in refused]
        if done:
            remedies.append(f"{done_words}: {', '.join(done)}.")
        raise type(refused[0])(
            _together(one.what for one in refused),
            why=_together(one.why for one in refused),
            remedy=_together(remedies),
        )


def _together(sentences: Iterable[str]) -> str:
    return " ".join(one for one in dict.fromkeys(sentences) if one)


def _row(job: JobView) -> JobRow:
    about = " ".join(f"{name}={value}" for name, value in job.arguments.items())
    return JobRow(
        job=job.job_id,
        kind=job.kind,
        about=about[:200],
        state=str(job.state),
        attempts=job.attempts,
        ordered_at=job.enqueued_at,
        error=job.error,
    )


COMMANDS = (
    Command("list", list_jobs),
    Command("kinds", list_kinds),
    Command("retry", retry),
    Command("cancel", cancel),
    Command("pause", pause),
    Command("resume", resume),
)
