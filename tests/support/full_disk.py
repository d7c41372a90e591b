"""A database on a disk that is full when a test says so: it can be read, and takes nothing.

That a disk that is really full is told in these words is proven by R5 (`prove/full_disk.py`).
"""

from __future__ import annotations

from contextlib import AbstractContextManager

import pytest
from sqlalchemy import Connection

from pacsteward.base.db import Database
from pacsteward.base.errors import Unavailable


class FullDisk:
    """The one on which the database lies."""

    def __init__(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_full = False
        write = database.write

        def tried(*, durable: bool = True) -> AbstractContextManager[Connection]:
            if self.is_full:
                raise Unavailable("The database did not answer.", why="database or disk is full")
            return write(durable=durable)

        monkeypatch.setattr(database, "write", tried)
