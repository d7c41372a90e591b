"""Time, as an argument.

Nothing in the house asks the operating system for the time directly: it is given a `Clock`, so
that a test or a simulated day can hand it another one.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol


class Clock(Protocol):
    """What the house needs to know about time."""

    def now(self) -> datetime:
        """Return the present moment as an aware datetime in UTC."""
        ...

    def monotonic(self) -> float:
        """Return seconds on a scale that never jumps; only differences mean anything."""
        ...

    def steady(self) -> datetime:
        """Return a moment that never jumps: what `now` was once, and what passed since.

        All processes that were forked from one agree on it.
        """
        ...


# Taken once, before any process is forked; the monotonic clock is the machine's.
_BEGAN: Final = datetime.now(UTC)
_BEGAN_S: Final = time.monotonic()


class SystemClock:
    """The clock of the machine."""

    def now(self) -> datetime:
        """Return the present moment as an aware datetime in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds on a scale that never jumps."""
        return time.monotonic()

    def steady(self) -> datetime:
        """Return a moment that never jumps."""
        return _BEGAN + timedelta(seconds=time.monotonic() - _BEGAN_S)


class ManualClock:
    """A clock that moves only when told to; for tests and simulated days.

    Parameters
    ----------
    start
        The first moment, aware.
    """

    def __init__(self, start: datetime = datetime(2026, 1, 1, 7, 0, tzinfo=UTC)) -> None:
        self._start = self._now = start
        self._elapsed_s = 0.0

    def now(self) -> datetime:
        """Return the moment it was last moved to."""
        return self._now

    def monotonic(self) -> float:
        """Return the seconds it was moved on since it was made."""
        return self._elapsed_s

    def steady(self) -> datetime:
        """Return the first moment, and what it was moved on since."""
        return self._start + timedelta(seconds=self._elapsed_s)

    def advance(self, seconds: float) -> None:
        """Move on by `seconds`."""
        self._now += timedelta(seconds=seconds)
        self._elapsed_s += seconds

    def jump(self, seconds: float) -> None:
        """Be set to another time of day, as by somebody's hand; what passed stays what it was."""
        self._now += timedelta(seconds=seconds)
