"""Sessions: how a browser stays signed in.

A session is random text in a cookie; only its hash is kept. It is made anew at each sign-in and
never taken from the request, so nobody can plant one (session fixation). It ends when it is not
used for a while, when it gets old, at sign-out, and when its person is disabled or gets another
password.

How long it was not used is told by a clock that never jumps: that of the machine as it was when
this process began, and from then on the seconds that have really gone by. A clock that is set
forward by a day signs nobody out, and one that is set back lets nobody in again.

References
----------
OWASP ASVS 5.0 V7 — session management.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, insert, select, update

from pacsteward.base.clock import Clock
from pacsteward.base.db import Database
from pacsteward.base.ids import new_secret
from pacsteward.security.changes import Changes
from pacsteward.security.noting import noting
from pacsteward.security.settings import SecuritySettings
from pacsteward.security.tables import PERSON, SESSION
from pacsteward.security.tokens import hash_of

AHEAD_MAX = timedelta(minutes=5)
"""A session that was used later than now is one from before the clock was set back."""
USE_NOTED_EVERY_S = 60.0
"""A session that is used all the time is written this often at most, not at each request."""


@dataclass(frozen=True, slots=True)
class Session:
    """A session that has just begun.

    Parameters
    ----------
    cookie
        The secret for the browser.
    form_token
        What the forms of this session carry, so that no other site can send them.
    device
        A second secret that tells this browser apart from strangers' at its next sign-in.
    """

    cookie: str = field(repr=False)
    form_token: str = field(repr=False)
    device: str = field(repr=False)
    person_name: str
    has_given_password: bool


@dataclass(frozen=True, slots=True)
class SessionState:
    """A session that has not ended, as the database knows it."""

    person_name: str
    ends_at: datetime


class Sessions:
    """Keeps sessions. Every method blocks."""

    def __init__(
        self, database: Database, clock: Clock, changes: Changes, settings: SecuritySettings
    ) -> None:
        self._database = database
        self._clock = clock
        self._changes = changes
        self.noted_every_s = min(USE_NOTED_EVERY_S, settings.session_idle_s / 4)
        self._idle = timedelta(seconds=settings.session_idle_s)
        self._length = timedelta(seconds=settings.session_length_s)

    def now(self) -> datetime:
        """Return the time that sessions go by."""
        return self._clock.steady()

    def begin(self, connection: Connection, person_name: str, address: str) -> str:
        """Begin a session in the caller's transaction and return its secret."""
        secret = new_secret(32)
        now = self.now()
        connection.execute(delete(SESSION).where(SESSION.c.began_at < now - self._length))
        connection.execute(
            insert(SESSION).values(
                session_hash=hash_of(secret),
                person_name=person_name,
                began_at=now,
                last_used_at=now,
                address=address,
            )
        )
        connection.execute(
            update(PERSON).where(PERSON.c.name == person_name).values(last_signed_in_at=now)
        )
        return secret

    def state(self, session_hash: str) -> SessionState | None:
        """Return a session that has not ended, and note that it is used.

        One that has ended is removed, so that a clock that is set back cannot revive it.
        """
        now = self.now()
        with self._database.read() as connection:
            query = select(SESSION).where(SESSION.c.session_hash == session_hash)
            row = connection.execute(query).one_or_none()
        if row is None:
            return None
        ends_at = row.began_at + self._length
        is_of_the_future = row.last_used_at > now + AHEAD_MAX
        if is_of_the_future or now >= min(ends_at, row.last_used_at + self._idle):
            with noting("The end of a session"):
                self.end(session_hash)
            return None
        if now - row.last_used_at >= timedelta(seconds=self.noted_every_s):
            self._note_use(session_hash, now)
        return SessionState(row.person_name, ends_at)

    def end(self, session_hash: str) -> str | None:
        """End a session; return whose it was."""
        with self._database.write() as connection:
            query = select(SESSION.c.person_name).where(SESSION.c.session_hash == session_hash)
            name = connection.execute(query).scalar()
            connection.execute(delete(SESSION).where(SESSION.c.session_hash == session_hash))
            self._changes.raise_number(connection)
        return name

    def _note_use(self, session_hash: str, now: datetime) -> None:
        with (
            noting("The use of a session"),
            self._database.write(durable=False) as connection,
        ):
            mine = SESSION.c.session_hash == session_hash
            connection.execute(update(SESSION).where(mine).values(last_used_at=now))


def form_token_of(cookie: str) -> str:
    """Return the form token that belongs to a session's secret.

    It is computed, so no request needs the database for it, and it gives nothing of the secret
    away.
    """
    return hash_of("form " + cookie)[:40]
