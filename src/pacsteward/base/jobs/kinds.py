"""Kinds of work: what a room declares about its jobs, and the arithmetic of when one runs.

Nothing here touches a database or a thread, so that the rules can be read, and tested, alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, time, timedelta

from pacsteward.base.errors import Kind, PacstewardError


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and how patiently a failed job is tried again.

    Parameters
    ----------
    max_attempts
        Attempts that may fail; the job is given up after the last one.
    first_delay_s, factor, max_delay_s
        The first pause, by how much each one grows, and its upper end.
    hopeless
        Kinds of errors that trying again cannot mend: the job is given up at once.
    """

    max_attempts: int = 8
    first_delay_s: float = 10.0
    factor: float = 3.0
    max_delay_s: float = 3600.0
    hopeless: frozenset[Kind] = frozenset({Kind.INVALID, Kind.UNSUPPORTED})

    def delay_s(self, failures: int, error: BaseException | None = None) -> float | None:
        """Return the pause after so many failed attempts, the last with `error`; None gives up."""
        if failures >= self.max_attempts:
            return None
        if isinstance(error, PacstewardError) and error.kind in self.hopeless:
            return None
        # Bounded before it is raised to a power: a job that is tried for weeks must not overflow.
        exponent = min(failures - 1, 64)
        return min(self.first_delay_s * self.factor**exponent, self.max_delay_s)


@dataclass(frozen=True, slots=True)
class Window:
    """The hours in which a kind of work may start, in the local time of the machine.

    A job that has started is not interrupted when the window closes.

    Parameters
    ----------
    opens, closes
        Local times of day; a window that closes before it opens spans midnight.
    weekdays
        Days on which it opens, Monday is 0.
    """

    opens: time
    closes: time
    weekdays: frozenset[int] = field(default=frozenset(range(7)))

    def is_open(self, now: datetime) -> bool:
        """Say whether work may start at `now` (aware)."""
        local = now.astimezone()
        moment, today = local.time(), local.weekday()
        if self.opens < self.closes:
            return today in self.weekdays and self.opens <= moment < self.closes
        yesterday = (today - 1) % 7
        return (today in self.weekdays and moment >= self.opens) or (
            yesterday in self.weekdays and moment < self.closes
        )


@dataclass(frozen=True, slots=True)
class JobKind:
    """One kind of work.

    Parameters
    ----------
    name
        Imperative, unique in the house: ``"forward_study"``.
    title
        For people: "Forward a study".
    retry
        What happens after a failure.
    concurrency
        How many of this kind run at the same time, in all processes together.
    window
        Hours in which it may start; None is always.
    every_s
        A kind that the house itself enqueues, without arguments, so many seconds after the last
        time; None is only on request. One that is still waiting or running is not doubled.
    """

    name: str
    title: str
    retry: Retry = field(default_factory=Retry)
    concurrency: int = 1
    window: Window | None = None
    every_s: float | None = None

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise ValueError(f"Job kind {self.name} needs a concurrency of 1 or more.")
        if self.every_s is not None and self.every_s <= 0:
            raise ValueError(f"Job kind {self.name} needs a period above 0 s.")


def is_due(last: datetime | None, every_s: float, now: datetime) -> bool:
    """Say whether a periodic kind is due again, `last` being when it was enqueued before.

    A period that was missed while nothing ran is made up for once, not as often as it was missed.
    A last time that lies in the future means that the clock was set back; waiting for it could
    silence the kind for as long as the clock was wrong.
    """
    return last is None or last > now or now >= last + timedelta(seconds=every_s)
