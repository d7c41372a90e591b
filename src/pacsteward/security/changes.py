"""A number that rises whenever people, tokens or roles change.

Checking a token against the database on every request would cost more than many requests
themselves. So each process remembers whom it has checked, together with this number, and asks
only for the number: when it is another one, all that was remembered is forgotten. A revoked token
is refused by the next request, in whatever process it was revoked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, insert, select, update

from pacsteward.base.db import Database
from pacsteward.security.tables import SECURITY_CHANGE

_NUMBER: Final = str(select(SECURITY_CHANGE.c.number))


class Changes:
    """Reads and raises the number.

    Parameters
    ----------
    database
        Where people and tokens are kept.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def number(self) -> int:
        """Return the present number, as committed by any process.

        Raises
        ------
        Unavailable
            The database does not answer.
        """
        return _of(self._database.glance(_NUMBER))

    def number_at_once(self) -> int:
        """Do the same as `number` on an event loop.

        In the embedded database it is one row of a file that readers never wait for: a few
        microseconds, less than the way into a thread and back. A PostgreSQL server on this machine
        takes 50.

        Raises
        ------
        WouldWait
            The database is elsewhere, or does not answer, or nobody has asked it from a thread.
        """
        return _of(self._database.at_once(_NUMBER, is_in_memory=True))

    def raise_number(self, connection: Connection) -> None:
        """Make everybody forget what they remember, once the caller's transaction is kept."""
        raised = connection.execute(
            update(SECURITY_CHANGE)
            .where(SECURITY_CHANGE.c.id == 1)
            .values(number=SECURITY_CHANGE.c.number + 1)
        )
        if raised.rowcount == 0:
            connection.execute(insert(SECURITY_CHANGE).values(id=1, number=1))


def _of(rows: Sequence[Sequence[Any]]) -> int:
    return int(rows[0][0]) if rows else 0
