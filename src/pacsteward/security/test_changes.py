"""The number of changes: each request asks for it, so that no event loop may wait for it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import event

from pacsteward.base.db import Database, open_database
from pacsteward.base.db import database as database_module
from pacsteward.base.errors import Unavailable, WouldWait
from pacsteward.security.changes import Changes


def test_the_number_is_told_at_once_after_a_thread_has_asked_for_it(database: Database) -> None:
    changes = Changes(database)
    with database.write() as connection:
        changes.raise_number(connection)
    opened: list[object] = []

    @event.listens_for(database.engine, "checkout")
    def note(connection: object, *_rest: object) -> None:
        opened.append(connection)

    with pytest.raises(WouldWait):
        changes.number_at_once()
    assert not opened
    assert changes.number() == changes.number_at_once() == 1
    with database.write() as connection:
        changes.raise_number(connection)
    assert changes.number_at_once() == 2


def test_a_locked_database_does_not_tell_the_number_and_is_said_to_be_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever shows a token is answered 503 then, and not 500."""
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_S", 0.05)
    locker = sqlite3.connect(tmp_path / "index.db", isolation_level=None)
    locker.execute("PRAGMA locking_mode=EXCLUSIVE")
    locker.execute("CREATE TABLE security_change (id INTEGER PRIMARY KEY, number INTEGER)")
    database = open_database(tmp_path / "index.db")
    changes = Changes(database)
    with pytest.raises(Unavailable):
        changes.number()
    with pytest.raises(WouldWait):
        changes.number_at_once()
    locker.close()
    assert changes.number() == changes.number_at_once() == 0
    database.close()
