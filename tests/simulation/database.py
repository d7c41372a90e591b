"""A database that can be away, that fails at a commit, and that loses what was not synced.

The embedded one keeps its newest transactions in a file beside it, the write-ahead log, which is
never folded in here while the archive runs. So a power cut loses an end of that file, at most back
to the last commit that was synced; SQLite itself finds where the last whole transaction ends
(https://sqlite.org/wal.html). PostgreSQL is taken to be another machine, whose power stays on.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, event

from pacsteward.base.db import Database, open_database
from pacsteward.base.errors import Unavailable
from tests.simulation.trouble import Fate


class FaultyDatabase(Database):
    """A database in the hands of a fate.

    Attributes
    ----------
    is_away
        Whether nobody answers.
    loses_answers
        How many of the next commits are kept although whoever made them hears that the connection
        was lost.
    answers_lost
        How many were.
    """

    def __init__(self, url: str | Path, fate: Fate) -> None:
        super().__init__(open_database(url).engine)
        self.is_away = False
        self.loses_answers = 0
        self.answers_lost = 0
        self._fate = fate
        self._log = Path(f"{url}-wal")
        self._synced_bytes = self._log.stat().st_size if self._log.is_file() else 0
        if self.is_sqlite:
            event.listen(self.engine, "connect", _keep_the_log)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Give a connection for reading."""
        self.answer()
        with super().read() as connection:
            yield connection

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[Connection]:
        """Give a connection for writing; trouble may come before the commit, and after it."""
        self.answer()
        with super().write(durable=durable) as connection:
            yield connection
            self._pass("before-commit")
        if durable and self.is_sqlite:
            self._synced_bytes = self._log.stat().st_size
        if self.loses_answers:
            self.loses_answers -= 1
            self.answers_lost += 1
            raise _away()
        self._pass("after-commit")

    def inherit(self, earlier: FaultyDatabase) -> None:
        """Take over from an earlier process what is synced: a kill makes nothing safe."""
        self._synced_bytes = min(self._synced_bytes, earlier._synced_bytes)

    def lose(self, copy: Path, chance: random.Random) -> None:
        """Take from `copy`, the folder of the embedded database, what a power cut may lose."""
        log = copy / self._log.name
        if not self.is_sqlite or not log.exists():
            return
        size = log.stat().st_size
        if size < self._synced_bytes:
            # Folded in by the last connection of the process before, which was closed late.
            return
        kept = chance.choice((self._synced_bytes, chance.randint(self._synced_bytes, size)))
        os.truncate(log, max(kept, 0))

    def answer(self) -> None:
        """Return if anybody is there.

        Raises
        ------
        Unavailable
            Nobody is.
        """
        self._fate.go_on()
        if self.is_away:
            raise _away()

    def _pass(self, point: str) -> None:
        if threading.current_thread().name == "indexer":
            # It passes these points itself.
            self._fate.go_on()
            return
        try:
            self._fate.reach(point)
        except OSError as error:
            raise Unavailable("The database did not answer.", why=str(error)) from error


def _away() -> Unavailable:
    return Unavailable("The database did not answer.", why="The connection to it was lost.")


def _keep_the_log(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA wal_autocheckpoint=0")
