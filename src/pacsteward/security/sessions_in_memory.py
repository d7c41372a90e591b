"""Sessions that begin while the database cannot be written: the disk is full.

Exactly then an administrator has to get in. Such a session is kept in memory that all web processes
share. It ends after an hour, or as soon as an ordinary one would that is not used, at sign-out,
with a restart, and when its person is disabled or gets another password; whoever signs in again
when there is room has an ordinary one. Some places are for administrators, who can make room.

References
----------
OWASP ASVS 5.0 V7 — session management.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pacsteward.base.shared import NUMBER_BYTES, shared_numbers
from pacsteward.security.sign_in import TooManyTries

LENGTH_S: Final = 3600.0
PLACES: Final = 32
ADMINISTRATORS_PLACES: Final = 8
"""Of each process; of all its places so many are for administrators alone."""

_HASH_BYTES: Final = 32
_NAME_BYTES: Final = 64
_TEXT_BYTES: Final = 2 * _HASH_BYTES + _NAME_BYTES
_NUMBERS: Final = 1 + _TEXT_BYTES // NUMBER_BYTES
"""Of a place: when the session ends, in milliseconds, or 0; then the texts."""


@dataclass(frozen=True, slots=True)
class SessionInMemory:
    """A session that has not ended.

    Parameters
    ----------
    password
        Tells by which password it was begun, see `mark`.
    """

    person_name: str
    password: bytes


def session_places(processes: int) -> memoryview:
    """Return the places of the sessions of so many processes; make them before the fork."""
    return shared_numbers(processes * PLACES * _NUMBERS)


def mark(text: str) -> bytes:
    """Return what stands for a text that is not to be kept itself."""
    return hashlib.sha256(text.encode()).digest()


class SessionsInMemory:
    """The sessions of all processes together.

    Parameters
    ----------
    places
        Made by `session_places`; a process begins sessions in its own ones alone.
    process
        The number of this one.
    monotonic
        Gives the time, in seconds; it must be the same for all processes.
    length_s
        How long a session lasts, used or not.
    """

    def __init__(
        self,
        places: memoryview,
        process: int,
        monotonic: Callable[[], float],
        length_s: float = LENGTH_S,
    ) -> None:
        self._numbers = places
        self._bytes = places.cast("B")
        self._mine = range(process * PLACES, (process + 1) * PLACES)
        self._monotonic = monotonic
        self._length_ms = int(min(length_s, LENGTH_S) * 1000)
        self._lock = threading.Lock()

    def begin(
        self, secret: str, person_name: str, password: bytes, *, is_administrator: bool = False
    ) -> None:
        """Begin a session.

        Raises
        ------
        TooManyTries
            There are too many.
        """
        now_ms = self._now_ms()
        with self._lock:
            others = 0 if is_administrator else ADMINISTRATORS_PLACES
            free = (place for place in self._mine[others:] if self._ends_ms(place) <= now_ms)
            place = next(free, None)
            if place is None:
                raise TooManyTries
            text = mark(secret) + password + person_name.encode().ljust(_NAME_BYTES, b"\0")
            start = (place * _NUMBERS + 1) * NUMBER_BYTES
            self._numbers[place * _NUMBERS] = 0
            self._bytes[start : start + _TEXT_BYTES] = text
            # Last: until then nobody takes the place for a session.
            self._numbers[place * _NUMBERS] = now_ms + self._length_ms

    def find(self, secret: str) -> SessionInMemory | None:
        """Return the session that has this secret."""
        place = self._place_of(secret)
        if place is None:
            return None
        _, password, name = self._texts(place)
        return SessionInMemory(name.rstrip(b"\0").decode(), password)

    def end(self, secret: str) -> str | None:
        """End a session, of whatever process; return whose it was."""
        place = self._place_of(secret)
        if place is None:
            return None
        name = self._texts(place)[2]
        self._numbers[place * _NUMBERS] = 0
        return name.rstrip(b"\0").decode()

    def _place_of(self, secret: str) -> int | None:
        now_ms, wanted = self._now_ms(), None
        for place in range(len(self._numbers) // _NUMBERS):
            if self._ends_ms(place) > now_ms:
                wanted = wanted or mark(secret)
                if self._texts(place)[0] == wanted:
                    return place
        return None

    def _texts(self, place: int) -> tuple[bytes, bytes, bytes]:
        start = (place * _NUMBERS + 1) * NUMBER_BYTES
        text = bytes(self._bytes[start : start + _TEXT_BYTES])
        return text[:_HASH_BYTES], text[_HASH_BYTES : 2 * _HASH_BYTES], text[2 * _HASH_BYTES :]

    def _ends_ms(self, place: int) -> int:
        return self._numbers[place * _NUMBERS]

    def _now_ms(self) -> int:
        return int(self._monotonic() * 1000)
