"""A database that is away or busy is said so, and never waited for without end."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sqlalchemy.pool import QueuePool

from pacsteward.base.db import Database, open_database
from pacsteward.base.db.database import POSTGRES_WIRE
from pacsteward.base.errors import Unavailable


def test_connections_that_are_all_in_use_are_named_as_the_cause(tmp_path: Path) -> None:
    engine = create_engine(
        f"sqlite:///{tmp_path / 'index.db'}",
        poolclass=QueuePool,
        pool_size=1,
        max_overflow=0,
        pool_timeout=0.05,
    )
    database = Database(engine)
    with engine.connect(), pytest.raises(Unavailable, match="in use"), database.read():
        pass
    database.close()


def test_postgresql_that_went_away_unseen_is_given_up(postgres_server: str) -> None:
    database = open_database(postgres_server)
    with database.read() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        used = driver.info.get_parameters()
    database.close()
    assert {name: int(used[name]) for name in POSTGRES_WIRE} == POSTGRES_WIRE


def test_what_the_url_says_about_waiting_goes_first(postgres_server: str) -> None:
    mark = "&" if "?" in postgres_server else "?"
    database = open_database(f"{postgres_server}{mark}connect_timeout=3")
    with database.read() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        assert driver.info.get_parameters()["connect_timeout"] == "3"
    database.close()
