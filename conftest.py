"""What every test of the house may ask for: a database, a clock."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import databases

from pacsteward.base.clock import ManualClock
from pacsteward.base.db import Database


@pytest.fixture
def clock() -> ManualClock:
    """Give a clock that moves only when told to."""
    return ManualClock()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """Give the URL of a PostgreSQL server for this test run; skips where there is none."""
    with databases.postgres_server() as url:
        yield url


@pytest.fixture(scope="session")
def _sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with databases.sqlite_template(tmp_path_factory.mktemp("template")) as path:
        yield path


@pytest.fixture(scope="session")
def _postgres_template(postgres_server: str) -> Iterator[str]:
    with databases.postgres_template(postgres_server) as name:
        yield name


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """Give an empty database with all tables; the test runs once on each kind."""
    if request.param == "sqlite":
        template = request.getfixturevalue("_sqlite_template")
        with databases.sqlite_database(template, tmp_path) as opened:
            yield opened
        return
    server = request.getfixturevalue("postgres_server")
    template = request.getfixturevalue("_postgres_template")
    with databases.postgres_database(server, template) as opened:
        yield opened


@pytest.fixture
def sqlite_database(_sqlite_template: Path, tmp_path: Path) -> Iterator[Database]:
    """Give an empty embedded database with all tables."""
    with databases.sqlite_database(_sqlite_template, tmp_path) as opened:
        yield opened


@pytest.fixture
def postgres_database(postgres_server: str, _postgres_template: str) -> Iterator[Database]:
    """Give an empty database of a PostgreSQL server, with all tables."""
    with databases.postgres_database(postgres_server, _postgres_template) as opened:
        yield opened
