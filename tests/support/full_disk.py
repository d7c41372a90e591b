"""A database that is full or locked when a test says so: it can be read, and takes nothing.

That a disk that is really full is told in these words is proven by R5 (`prove/full_disk.py`).
"""

from __future__ import annotations

import sqlite3
from contextlib import AbstractContextManager

import pytest
from sqlalchemy import Connection

from pacsteward.base.db import Database
from pacsteward.base.db.look import unavailable
from pacsteward.base.errors import Unavailable


class FullDisk:
    """The one on which the database lies."""

    def __init__(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_full = False
        self.is_locked = False
        """Another writer keeps it for longer than is waited."""
        write = database.write

        def tried(*, durable: bool = True) -> AbstractContextManager[Connection]:
            if self.is_full:
                raise _as_told("SQLITE_FULL", "database or disk is full")
            if self.is_locked:
                raise _as_told("SQLITE_BUSY", "database is locked")
            return write(durable=durable)

        monkeypatch.setattr(database, "write", tried)


def _as_told(name: str, words: str) -> Unavailable:
    error = sqlite3.OperationalError(words)
    error.sqlite_errorname = name
    told = unavailable(error)
    told.__cause__ = error
    return told
