"""Guessing passwords is made slow, and never at the cost of the person whose name is tried.

Wrong passwords are counted by person, by address and by both. The more there were lately, the
longer the next try waits before it is looked at; it is always looked at, so nobody is locked out.
A browser from which the person has signed in before has a count of its own: what strangers do
elsewhere does not slow it.

References
----------
OWASP ASVS 5.0 V6.3 — brute force; NIST SP 800-63B 5.2.2 — rate limiting.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from pacsteward.base.clock import Clock
from pacsteward.base.db import Database
from pacsteward.base.errors import Exhausted, Forbidden, Unavailable
from pacsteward.base.shared import shared_numbers
from pacsteward.security.failures_in_memory import (
    FORGOTTEN_AFTER,
    FailuresInMemory,
    failure_places,
)
from pacsteward.security.tables import FAILED_SIGN_IN

WAITS_S: tuple[tuple[int, float], ...] = ((50, 8.0), (20, 4.0), (8, 2.0), (5, 0.5))
"""From so many failures on, a try waits so long, in seconds."""

TOO_MANY = 10
"""From so many failures on, a wrong password is answered with "too many tries"."""

WAITING_MAX = 32
WAITING_FOR_ONE_ADDRESS_MAX = 4
WAITING_S_MAX = 60.0
"""Nobody waits so long: the longest wait, and those of all others whose passwords are looked at
before. Who seems to is in a process that was stopped, or has died and was not started again yet."""


class SignInFailed(Forbidden):
    """Name and password do not fit. It never says which of the two.

    Parameters
    ----------
    failures
        How many there were lately, this one included.
    """

    def __init__(self, failures: int) -> None:
        super().__init__(
            "You could not be signed in.",
            why="Name and password do not fit together, or the account is disabled.",
            remedy="Try again, or ask an administrator to reset the password.",
        )
        self.failures = failures

    @property
    def is_too_many(self) -> bool:
        """Whether somebody seems to be guessing."""
        return self.failures >= TOO_MANY


class TooManyTries(Exhausted):
    """So many tries are waiting that this one is not looked at.

    Parameters
    ----------
    retry_after_s
        When it makes sense to come back, in seconds.
    """

    def __init__(self, retry_after_s: int = 10) -> None:
        super().__init__(
            "Too many people are signing in at once.",
            why="Earlier tries from here are still waiting.",
            remedy=f"Try again in {retry_after_s} seconds.",
        )
        self.retry_after_s = retry_after_s


def waiting_places(processes: int) -> memoryview:
    """Return the places of those who wait, for so many processes; make them before the fork."""
    return shared_numbers(2 * processes * WAITING_MAX)


class WaitingQueue:
    """Who waits in all processes together.

    Each process has places that it alone writes to; in each stands whose it is, as a number made of
    the address, or 0; and since when, in milliseconds. A process that died is gone from the queue
    when it begins anew, and one that does not go on after a minute.

    Parameters
    ----------
    places
        Of all processes, made by `waiting_places`.
    process
        The number of this one.
    monotonic
        Gives the time, in seconds; it must be the same for all processes.
    """

    def __init__(
        self,
        places: memoryview,
        process: int = 0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        middle = len(places) // 2
        self._places, self._since_ms = places[:middle], places[middle:]
        self._mine = range(process * WAITING_MAX, (process + 1) * WAITING_MAX)
        self._monotonic = monotonic
        self._lock = threading.Lock()
        for place in self._mine:
            self._places[place] = 0

    def enter(self, address: str) -> int:
        """Return the place that was taken.

        Raises
        ------
        TooManyTries
            The queue, or the part of it that one address may take, is full.
        """
        mark = _mark(address)
        with self._lock:
            place = next((one for one in self._mine if not self._places[one]), None)
            if place is None:
                raise TooManyTries
            # Taken first and counted then: of two processes that do so in the same moment both may
            # be refused, but never one too many let in.
            now_ms = int(self._monotonic() * 1000)
            self._since_ms[place] = now_ms
            self._places[place] = mark
            waiting = self._waiting(now_ms)
            if waiting.count(mark) > WAITING_FOR_ONE_ADDRESS_MAX or len(waiting) > WAITING_MAX:
                self._places[place] = 0
                raise TooManyTries
        return place

    def leave(self, place: int) -> None:
        """Give a place back."""
        self._places[place] = 0

    def _waiting(self, now_ms: int) -> list[int]:
        since_ms = now_ms - int(WAITING_S_MAX * 1000)
        return [
            mark
            for mark, entered_ms in zip(self._places, self._since_ms, strict=True)
            if mark and entered_ms >= since_ms
        ]


def _mark(address: str) -> int:
    return int.from_bytes(hashlib.blake2s(address.encode(), digest_size=8).digest()) | 1


class SignInGuard:
    """Counts failures and says how long to wait.

    Parameters
    ----------
    database
        The counts are there, so that several web processes share them and a restart keeps them.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._waiting = WaitingQueue(waiting_places(1))
        self._unwritten = FailuresInMemory(failure_places(1), 0, clock.monotonic)

    def wait_together(self, queue: WaitingQueue) -> None:
        """Have those who wait here wait in a queue with those of other processes."""
        self._waiting = queue

    def count_together(self, numbers: memoryview, process: int) -> None:
        """Share the failures that cannot be written with other processes; see `failure_places`."""
        self._unwritten = FailuresInMemory(numbers, process, self._clock.monotonic)

    @contextmanager
    def queue(self, address: str) -> Iterator[None]:
        """Hold a place in the queue of those who wait.

        Raises
        ------
        TooManyTries
            The queue, or the part of it that one address may take, is full.
        """
        place = self._waiting.enter(address)
        try:
            yield
        finally:
            self._waiting.leave(place)

    def wait_s(self, name: str, address: str, device_hash: str = "") -> float:
        """Say how long to wait before the next try is looked at, in seconds.

        Parameters
        ----------
        device_hash
            Of a browser that is known to be the person's own; empty for any other.
        """
        failures = self._failures(_subjects(name, address, device_hash))
        return next((wait for count, wait in WAITS_S if failures >= count), 0.0)

    def note_failure(self, name: str, address: str, device_hash: str = "") -> int:
        """Count a wrong password; return how many there were lately."""
        now = self._clock.now()
        subjects = _subjects(name, address, device_hash)
        try:
            self._count(subjects, now)
        except Unavailable:
            # The disk is full; that must not be a good time to guess.
            for subject in subjects:
                self._unwritten.count(subject)
        return self._failures(subjects)

    def _count(self, subjects: list[str], now: datetime) -> None:
        with self._database.write(durable=False) as connection:
            old = FAILED_SIGN_IN.c.last_at < now - FORGOTTEN_AFTER
            connection.execute(delete(FAILED_SIGN_IN).where(old))
            for subject in subjects:
                mine = FAILED_SIGN_IN.c.subject == subject
                more = {"failures": FAILED_SIGN_IN.c.failures + 1, "last_at": now}
                if connection.execute(update(FAILED_SIGN_IN).where(mine).values(more)).rowcount:
                    continue
                try:
                    with connection.begin_nested():
                        row = {"subject": subject, "failures": 1, "last_at": now}
                        connection.execute(insert(FAILED_SIGN_IN).values(row))
                except IntegrityError:
                    # Another process counted the first one in this very moment.
                    connection.execute(update(FAILED_SIGN_IN).where(mine).values(more))

    def note_success(self, name: str, address: str, device_hash: str = "") -> None:
        """Forget the person's own slips; what is counted for the address stays."""
        slips = [_pair(name, address), *([f"device {device_hash}"] if device_hash else [])]
        for slip in slips:
            self._unwritten.forget(slip)
        with self._database.write(durable=False) as connection:
            connection.execute(delete(FAILED_SIGN_IN).where(FAILED_SIGN_IN.c.subject.in_(slips)))

    def _failures(self, subjects: list[str]) -> int:
        since = self._clock.now() - FORGOTTEN_AFTER
        with self._database.read() as connection:
            rows = connection.execute(
                select(FAILED_SIGN_IN.c.subject, FAILED_SIGN_IN.c.failures).where(
                    FAILED_SIGN_IN.c.subject.in_(subjects), FAILED_SIGN_IN.c.last_at >= since
                )
            )
            written = {subject: int(failures) for subject, failures in rows}
        return max(written.get(one, 0) + self._unwritten.of(one) for one in subjects)


def _subjects(name: str, address: str, device_hash: str) -> list[str]:
    if device_hash:
        return [f"device {device_hash}"]
    return [f"person {_short(name)}", f"address {_short(address)}", _pair(name, address)]


def _pair(name: str, address: str) -> str:
    return f"pair {_short(name)} {_short(address)}"


def _short(text: str) -> str:
    """Names come from a form: they may be of any length, and hold what PostgreSQL refuses."""
    text = text.strip().lower()
    if len(text) <= 64 and text.isascii() and text.isprintable():
        return text
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
