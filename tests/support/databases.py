"""Fresh databases with all tables: an SQLite file, or a database of a PostgreSQL server."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.engine import make_url

from pacsteward.base.db import METADATA, Database, open_database
from pacsteward.migrations import import_all_tables
from tests.support.postgres import NotInstalled, running_postgres

POSTGRES_VARIABLE = "PACSTEWARD_TEST_POSTGRES"
"""Names a server to use instead of one of our own; its role must be allowed to make databases."""


@contextmanager
def postgres_server() -> Iterator[str]:
    """Give the URL of a server for tests; skips the test where there is none."""
    named = os.environ.get(POSTGRES_VARIABLE, "")
    if named:
        yield named
        return
    try:
        with running_postgres() as url:
            yield url
    except NotInstalled as error:
        pytest.skip(f"{error} {POSTGRES_VARIABLE} names no server either.")


@contextmanager
def sqlite_template(folder: Path) -> Iterator[Path]:
    """Make an SQLite file with all tables, to be copied for each test."""
    import_all_tables()
    path = folder / "template.db"
    database = open_database(path)
    METADATA.create_all(database.engine)
    with database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    yield path


@contextmanager
def sqlite_database(template: Path, folder: Path) -> Iterator[Database]:
    """Give a copy of `template`."""
    path = folder / "index.db"
    shutil.copyfile(template, path)
    database = open_database(path)
    try:
        yield database
    finally:
        database.close()


@contextmanager
def postgres_template(server: str) -> Iterator[str]:
    """Make a database with all tables on `server`, to be copied for each test; give its name."""
    import_all_tables()
    with empty_postgres_database(server) as database:
        METADATA.create_all(database.engine)
        name = database.engine.url.database
        # A template must have no connections while it is copied.
        database.close()
        assert name is not None
        yield name


@contextmanager
def postgres_database(server: str, template: str) -> Iterator[Database]:
    """Give a copy of `template`."""
    with empty_postgres_database(server, template) as database:
        yield database


@contextmanager
def empty_postgres_database(server: str, template: str = "template0") -> Iterator[Database]:
    """Give a new database of `server`, which is dropped afterwards."""
    name = f"test_{secrets.token_hex(6)}"
    with psycopg.connect(server, autocommit=True) as connection:
        # Names come from us alone. A copy by files is quick as long as nothing is synced.
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    url = make_url(server).set(database=name)
    database = open_database(url.render_as_string(hide_password=False))
    try:
        yield database
    finally:
        database.close()
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
