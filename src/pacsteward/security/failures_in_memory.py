"""Wrong passwords that cannot be written down, because the disk is full.

That must not be a good time to guess. They are counted in memory that all web processes share: each
counts in places of its own, which outlive it, and what stands in the places of all is added up.

A subject (a person, an address, both) has a few places in each process in which it may be counted,
chosen by a hash whose key nobody outside knows. Where all of them are taken, the subject that was
counted longest ago makes room.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Final

from pacsteward.base.shared import NUMBER_BYTES, shared_numbers

FORGOTTEN_AFTER: Final = timedelta(minutes=15)

SETS: Final = 1024
PLACES_OF_A_SET: Final = 8
_NUMBERS: Final = 3
"""Of a place: whose it is, or 0; how many failures; when the last one was, in milliseconds."""
_NUMBERS_OF_PROCESS: Final = SETS * PLACES_OF_A_SET * _NUMBERS


def failure_places(processes: int) -> memoryview:
    """Return the places of so many processes, and the key; make them before the fork."""
    numbers = shared_numbers(1 + processes * _NUMBERS_OF_PROCESS)
    numbers[0] = secrets.randbits(8 * NUMBER_BYTES)
    return numbers


class FailuresInMemory:
    """The failures that all processes counted.

    Parameters
    ----------
    numbers
        Made by `failure_places`; a process counts in its own part alone.
    process
        The number of this one.
    monotonic
        Gives the time, in seconds; it must be the same for all processes.
    """

    def __init__(self, numbers: memoryview, process: int, monotonic: Callable[[], float]) -> None:
        self._numbers = numbers
        self._key = numbers[:1].tobytes()
        self._process = process
        self._processes = len(numbers) // _NUMBERS_OF_PROCESS
        self._monotonic = monotonic
        self._lock = threading.Lock()

    def count(self, subject: str) -> None:
        """Count a failure."""
        mark = self._mark(subject)
        now_ms = self._now_ms()
        with self._lock:
            places = list(self._places_of(mark, self._process))
            at = next((one for one in places if self._numbers[one] == mark), None)
            failures = self._failures_at(at, now_ms) if at is not None else 0
            if at is None:
                at = min(places, key=lambda one: (bool(self._numbers[one]), self._numbers[one + 2]))
            self._numbers[at] = 0
            self._numbers[at + 1], self._numbers[at + 2] = failures + 1, now_ms
            # Last: until then nobody takes what stands there for failures of this subject.
            self._numbers[at] = mark

    def of(self, subject: str) -> int:
        """Return how many failures were counted lately, by all processes."""
        now_ms = self._now_ms()
        return sum(self._failures_at(at, now_ms) for at in self._all_places_of(subject))

    def forget(self, subject: str) -> None:
        """Forget what was counted, by whatever process."""
        for at in self._all_places_of(subject):
            self._numbers[at] = 0

    def _all_places_of(self, subject: str) -> Iterator[int]:
        mark = self._mark(subject)
        for process in range(self._processes):
            yield from (at for at in self._places_of(mark, process) if self._numbers[at] == mark)

    def _places_of(self, mark: int, process: int) -> range:
        start = 1 + process * _NUMBERS_OF_PROCESS
        start += mark % SETS * PLACES_OF_A_SET * _NUMBERS
        return range(start, start + PLACES_OF_A_SET * _NUMBERS, _NUMBERS)

    def _failures_at(self, at: int, now_ms: int) -> int:
        is_recent = now_ms - self._numbers[at + 2] <= FORGOTTEN_AFTER.total_seconds() * 1000
        return self._numbers[at + 1] if is_recent else 0

    def _mark(self, subject: str) -> int:
        """Return the number that stands for a subject, never 0."""
        digest = hashlib.blake2s(subject.encode(), key=self._key, digest_size=NUMBER_BYTES)
        return int.from_bytes(digest.digest()) or 1

    def _now_ms(self) -> int:
        return int(self._monotonic() * 1000)
